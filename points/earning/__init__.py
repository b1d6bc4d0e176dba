"""What an activity earns: rules, multipliers, reversals by source event."""
