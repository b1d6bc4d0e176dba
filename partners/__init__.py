"""Who the bank opens itself to, how they get in, what they sell and what is owed."""
