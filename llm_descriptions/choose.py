"""The rule by which a bank of descriptions picks its source, and the messages when it cannot."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_descriptions.errors import DescriptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One way in which descriptions were made: prompt set, model and number of texts a class."""

    prompt_id: str
    model: str
    n: int

    def __str__(self) -> str:
        return f"prompt_id={self.prompt_id}, model={self.model}, n={self.n}"


def choose_sources(
    held: Mapping[str, Mapping[Source, set[str]]],
    labels: Sequence[str],
    *,
    where: Path,
    wanted: Mapping[str, object],
) -> dict[str, Source]:
    """Return for each kind of ``held`` (source -> labels it has) the one source that has all ``labels``.

    Raises one ``DescriptionError`` for all kinds together: every label that the best source lacks, or else
    every kind for which several sources have all.
    """
    complete = {
        kind: sorted(source for source, has in sources.items() if has.issuperset(labels))
        for kind, sources in held.items()
    }
    lacking = [_missing(kind, held[kind], labels) for kind, found in complete.items() if not found]
    if lacking:
        given = ", ".join(f"{name}={value}" for name, value in wanted.items() if value is not None)
        raise DescriptionError(
            f"{where} lacks descriptions{f' with {given}' if given else ''}: {'; '.join(lacking)}. "
            f"To add them: python pipelines/describe.py --labels CSV --out {where.parent} "
            "with --model NAME --base-url URL, or with --from-published FILES"
        )
    unclear = [f"{kind}: {' | '.join(map(str, found))}" for kind, found in complete.items() if len(found) > 1]
    if unclear:
        raise DescriptionError(
            f"{where} holds several descriptions of these classes, and they are never mixed: "
            f"{'; '.join(unclear)}. Say which (n, model, prompt_id), or keep each in a store of its own"
        )
    return {kind: found[0] for kind, found in complete.items()}


def _missing(kind: str, sources: Mapping[Source, set[str]], labels: Sequence[str]) -> str:
    best = max(sources.values(), key=lambda has: len(has.intersection(labels)), default=set[str]())
    missing = [label for label in labels if label not in best]
    if len(missing) == len(labels) and not best:
        return f"{kind}: none at all for {_names(missing, best, labels)}"
    return f"{kind}: {len(missing)} of {len(labels)} classes: {_names(missing, best, labels)}"


def _names(missing: Sequence[str], known: set[str], wanted: Sequence[str]) -> str:
    folded = {name.casefold().replace("_", " "): name for name in known.difference(wanted)}
    shown = []
    for label in missing:
        near = difflib.get_close_matches(label.casefold().replace("_", " "), folded, n=1, cutoff=0.8)
        shown.append(f"'{label}'" + (f" (there is '{folded[near[0]]}')" if near else ""))
    return ", ".join(shown)
