"""From a model and test sets to metrics."""
