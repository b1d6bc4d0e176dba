"""Wallets, lots, holds, entries: the double-entry core."""
