"""The pages the bank shows a member: login, consent, and what went wrong. No partner ever sees what is typed here."""
