"""The bank's own app: an issuer of its own for a client without a secret, and what a member may do with it."""
