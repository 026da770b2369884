"""The evaluation protocols: the one table of their names, and what belongs to each. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A protocol as users and readers know it.

    Attributes:
        title: its name in tables and sentences.
        preset: the preset of a method that is meant for it.
        reads_lists: whether it reads split lists of labelled videos; retrieval reads captions instead.
    """

    title: str
    preset: str
    reads_lists: bool = True


PROTOCOLS: Mapping[str, Protocol] = {
    "zero_shot": Protocol(title="zero-shot", preset="zeroshot"),
    "few_shot": Protocol(title="few-shot", preset="fewshot"),
    "b2n": Protocol(title="base-to-novel", preset="b2n"),
    "supervised": Protocol(title="supervised", preset="full"),
    "retrieval": Protocol(title="retrieval", preset="retrieval", reads_lists=False),
}
"""Protocols by the name that flags, settings and records use, in the order in which reports show them."""
