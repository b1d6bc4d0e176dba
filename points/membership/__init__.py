"""Members, levels, tiers, entitlements."""
