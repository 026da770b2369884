"""A trained model leaves this package: a folder with its graph, its classes and an example that needs neither."""
