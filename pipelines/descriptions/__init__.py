"""Descriptions of classes: asked of a language model, imported, judged."""
