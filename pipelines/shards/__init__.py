"""Ingested data on disk, and reading clips of it."""
