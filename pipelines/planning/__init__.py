"""From flags to a checked plan, and the forecast of its cost."""
