"""The choice of the one source of a bank of descriptions, and the messages if there is none or several."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_descriptions.errors import DescriptionError
from llm_descriptions.labels import folded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class TextSource:
    """The prompt set, model and number of texts per class that a set of descriptions was made with."""

    prompt_id: str
    model: str
    n: int

    def __str__(self) -> str:
        return f"prompt_id={self.prompt_id}, model={self.model}, n={self.n}"


def choose_sources(
    labels_by_source: Mapping[str, Mapping[TextSource, set[str]]],
    labels: Sequence[str],
    *,
    where: Path,
    filters: Mapping[str, object],
) -> dict[str, TextSource]:
    """Choose, for each kind, the only source that has all ``labels``.

    Args:
        labels_by_source: by kind, the sources and the labels that each has.
        labels: the labels that a source must have.
        where: the store, for messages.
        filters: the user's conditions on a source, for messages; those that are None do not count.

    Raises:
        DescriptionError: for some kinds no source has all labels, or several have; one message for all kinds lists
            each label that the most complete source lacks, or the sources to choose from.
    """
    complete = {
        kind: sorted(source for source, known in sources.items() if known.issuperset(labels))
        for kind, sources in labels_by_source.items()
    }
    missing = [_describe_missing(kind, labels_by_source[kind], labels) for kind, found in complete.items() if not found]
    if missing:
        given = ", ".join(f"{name}={value}" for name, value in filters.items() if value is not None)
        condition = f" with {given}" if given else ""
        raise DescriptionError(
            f"{where} lacks descriptions{condition}: {'; '.join(missing)}. "
            f"To add them: python pipelines/describe.py --labels CSV --out {where.parent} "
            "with --model NAME --base-url URL, or with --from-published FILES"
        )
    several = [f"{kind}: {' | '.join(map(str, found))}" for kind, found in complete.items() if len(found) > 1]
    if several:
        raise DescriptionError(
            f"{where} has descriptions of these classes from several sources, which are never mixed: "
            f"{'; '.join(several)}. Choose one by n, model or prompt_id, or keep each in its own store"
        )
    return {kind: found[0] for kind, found in complete.items()}


def _describe_missing(kind: str, sources: Mapping[TextSource, set[str]], labels: Sequence[str]) -> str:
    known = max(sources.values(), key=lambda found: len(found.intersection(labels)), default=set[str]())
    missing = [label for label in labels if label not in known]
    names = _with_similar_names(missing, known.difference(labels))
    if not known:
        return f"{kind}: none at all for {names}"
    return f"{kind}: {len(missing)} of {len(labels)} classes: {names}"


def _with_similar_names(missing: Sequence[str], others: set[str]) -> str:
    """List the missing labels, each with the most similar of the other names."""
    names = {folded(name): name for name in others}
    parts = []
    for label in missing:
        similar = difflib.get_close_matches(folded(label), names, n=1, cutoff=0.8)
        hint = f" (there is '{names[similar[0]]}')" if similar else ""
        parts.append(f"'{label}'{hint}")
    return ", ".join(parts)
