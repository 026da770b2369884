"""A trained model and videos become rows, and rows become answers: predictions, features and a search in them."""
