"""From a plan to a finished, tracked and registered run."""
