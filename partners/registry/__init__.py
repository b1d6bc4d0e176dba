"""Partners, their apps, agreements and keys."""
