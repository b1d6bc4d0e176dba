"""The authorization server: client authentication, access tokens, proofs, pairwise subjects, consents."""
