"""Rewards: what points buy, from the catalogue to the piece in the member's hand."""
