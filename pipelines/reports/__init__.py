"""Pages, pictures and model cards of finished runs."""
