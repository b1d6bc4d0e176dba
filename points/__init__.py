"""The unified points and membership ledger."""
