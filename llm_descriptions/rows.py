"""Rows of a description store that contradict themselves: found as they are read, as any program can write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_descriptions.prompts import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence


def wrong_key(row: Sequence[Any]) -> str:
    """Describe what is wrong with a key (label, kind, prompt_id, model, n); "" if nothing is."""
    if [type(value) for value in row] != [str, str, str, str, int]:
        return f"a row has the key {tuple(row)!r:.200}"
    label, kind, *_, n = row
    if not label.strip():
        return "a row has a blank class name"
    if kind not in KINDS:
        return f"{label!r:.100} has descriptions of the unknown kind {kind!r:.100}"
    return f"{label!r:.100} has the n {n}, which is below 1" if n < 1 else ""


def wrong_count(label: str, n: int, found: int, origin: object) -> str:
    """Describe a number of texts that is not ``n``; "" if it is, or if the texts are of a published file (origin)."""
    texts = "1 text" if found == 1 else f"{found} texts"
    return f"{label!r:.100} has {texts} where n is {n}" if found != n and not origin else ""
