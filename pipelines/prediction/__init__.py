"""A trained model and videos become rows: a handful in this process, many on Ray Data."""
