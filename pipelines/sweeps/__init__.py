"""Many settings are tried, and the best is trained again."""
