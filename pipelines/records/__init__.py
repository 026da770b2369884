"""Finished runs on disk: found, read, checked and summed up."""
