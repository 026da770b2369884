"""Cells of a CSV that a spreadsheet shows as they are: it calculates those that begin like a formula."""

from __future__ import annotations

import os

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def text_cell(text: str) -> str:
    """Return a text, with ``'`` before it if a spreadsheet would calculate it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def path_cell(path: str) -> str:
    """Return a path, with ``./`` before it if a spreadsheet would calculate it: it names the same file."""
    return f".{os.sep}{path}" if path.startswith(_FORMULA) else path
