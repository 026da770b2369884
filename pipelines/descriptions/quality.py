"""The quality of stored descriptions: lengths, repetitions, leaked class names, similarity of classes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_descriptions.labels import folded
from llm_descriptions.prompts import split_camel, unframed
from llm_descriptions.sources import TextSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llm_descriptions.store import DescriptionStore
    from vlmodels.backbone import Backbone

    Texts = Mapping[str, Sequence[str]]


_PAIRS = 20


def judge_store(
    store: DescriptionStore, labels: Sequence[str], kinds: Sequence[str], backbone: Backbone, *, n: int | None = None
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Judge every source that has all ``labels``; return a record for JSON and the cosines (C,C) of each source.

    Raises:
        DescriptionError: no source has all of them; names what is missing.
    """
    held: dict[tuple[str, TextSource], set[str]] = {}
    wanted = set(labels)
    for key in store.keys():  # noqa: SIM118 - no mapping
        if key.kind in kinds and n in {None, key.n} and key.label in wanted:
            held.setdefault((key.kind, TextSource(key.prompt_id, key.model, key.n)), set()).add(key.label)
    whole = sorted(source for source, has in held.items() if has == wanted)
    if not whole:
        store.bank(labels, kinds, n=n)  # raises, naming what is missing
    context = backbone.spec.context_length
    sources: list[dict[str, Any]] = []
    matrices: list[np.ndarray] = []
    sentences: list[str] = []
    for kind, source in whole:
        texts = store.bank(labels, [kind], n=source.n, model=source.model, prompt_id=source.prompt_id)[kind]
        cosines = class_cosines(backbone, texts)
        facts = judge(texts, kind, source.n, token_count(backbone), context, framed=not source.model.startswith("ost/"))
        sources.append({"kind": kind, "source": str(source), **facts, **similarity(cosines, labels)})
        matrices.append(cosines)
        sentences += [text for found in texts.values() for text in found]
    record = {
        "store": str(store.path),
        "classes": len(labels),
        "backbone": backbone.spec.name,
        "context": context,
        "remarks": _caveats(backbone, sentences),
        "sources": sources,
        "incomplete": [
            {"kind": kind, "source": str(source), "missing": [label for label in labels if label not in has]}
            for (kind, source), has in sorted(held.items(), key=lambda item: item[0])
            if has != wanted
        ],
    }
    return record, matrices


def judge(
    texts: Texts, kind: str, n: int, tokens: Callable[[str], int], context: int, *, framed: bool
) -> dict[str, Any]:
    """Return counts, lengths, repetitions, leaks and template misses of one source's texts by class.

    ``context``: tokens that the text tower reads, start and end included; what is longer is ``cut``. Repetitions
    are of phrases, without the frame that all sentences share. ``leaks``: spatial sentences that hold their class
    name. ``misses``: sentences without the frame of their kind (None where the source has no frames: OST's).
    """
    pairs = [(label, text) for label, found in texts.items() for text in found]
    sizes = [tokens(text) for _, text in pairs]
    users: dict[str, list[str]] = {}
    for label, text in pairs:
        users.setdefault(folded(unframed(text) or text).rstrip("."), []).append(label)
    return {
        "texts": len(pairs),
        "uneven": {label: len(found) for label, found in texts.items() if len(found) != n},
        "words": _spread([len(text.split()) for _, text in pairs]),
        "tokens": _spread(sizes),
        "cut": [
            {"label": label, "tokens": size, "text": text}
            for (label, text), size in zip(pairs, sizes, strict=True)
            if size > context
        ],
        "twice": [{"label": label, "text": p} for p, by in users.items() for label in set(by) if by.count(label) > 1],
        "shared": [{"labels": sorted(set(by)), "text": phrase} for phrase, by in users.items() if len(set(by)) > 1],
        "leaks": [{"label": label, "text": t} for label, t in pairs if names_class(t, label)]
        if kind == "spatial"
        else None,
        "misses": [{"label": label, "text": t} for label, t in pairs if unframed(t, kind) is None] if framed else None,
    }


def names_class(text: str, label: str) -> bool:
    """Return whether a text holds the class name, glued or split, as whole words."""
    spellings = "|".join(re.escape(folded(name)) for name in {label, split_camel(label)})
    return re.search(rf"(?<!\w)(?:{spellings})(?!\w)", folded(text)) is not None


def class_cosines(backbone: Backbone, texts: Texts) -> np.ndarray:
    """Return the cosines (C,C) of the classes' mean features in the frozen text tower, which MSTA's loss compares."""
    from vlmodels.classifier import description_features, unit

    features = unit(description_features(backbone, texts, list(texts)))
    cosines: np.ndarray = (features @ features.T).cpu().numpy()
    return cosines


def similarity(cosines: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Return mean and greatest cosine between classes, the closest pairs, and each class's nearest other."""
    if len(labels) < 2:
        return {"mean_cosine": None, "closest": [], "nearest": {}}
    first, second = np.triu_indices(len(labels), 1)
    between = cosines[first, second]
    order = np.argsort(-between, kind="stable")[:_PAIRS]
    others = np.where(np.eye(len(labels), dtype=bool), -np.inf, cosines)
    return {
        "mean_cosine": round(float(between.mean()), 4),
        "closest": [
            {"labels": [labels[first[i]], labels[second[i]]], "cosine": round(float(between[i]), 4)} for i in order
        ],
        "nearest": {
            label: {"label": labels[i], "cosine": round(float(row[i]), 4)}
            for label, row, i in zip(labels, others, others.argmax(1), strict=True)
        },
    }


def token_count(backbone: Backbone) -> Callable[[str], int]:
    """Return how many tokens a text has for the backbone, uncut, with its start and end."""
    return backbone.count_tokens


def _spread(values: Sequence[int]) -> dict[str, float]:
    return {"min": min(values), "mean": round(sum(values) / len(values), 2), "max": max(values)}


def _caveats(backbone: Backbone, sentences: Sequence[str]) -> list[str]:
    """Return the limits of the similarities: the toy's text tower knows few words."""
    if not backbone.spec.name.startswith("toy"):
        return []
    from vlmodels.toy import unknown_words

    words = set(re.findall(r"\w+|[^\w\s]", " ".join(sentences).lower()))
    unknown = unknown_words(" ".join(sorted(words)))
    return [
        f"lengths and similarities are those of the toy CLIP, which does not know {len(unknown)} of these "
        f"{len(words)} words and reads {backbone.spec.context_length} tokens: name the backbone that you will tune "
        "with --backbone NAME --pretrained TAG"
    ]
