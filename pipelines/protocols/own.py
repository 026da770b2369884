"""Seeded splits of a user's own clips: clips of one source video (a group) are never torn apart."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from pipelines.protocols.split import Clip
from vlmodels.errors import UserError

PART_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def own_train_test(clips: Iterable[Clip], fraction: float, seed: int) -> tuple[list[Clip], list[Clip], str, list[str]]:
    """Split labelled clips into train and test without tearing a group (clips of one source) apart.

    Folders or lists named for it (``train``, and ``test`` or ``val``) are taken at their word; otherwise, and where
    no name speaks of either, a seeded share ``fraction`` of each class, at least one group, is test. Only train leaves
    out what cannot be decoded.

    Returns:
        Train, test, how they came to be, and what a reader of the result should know.

    Raises:
        UserError: folders or lists of which it is unclear what they are for, or that share clips.
    """
    labelled = [clip for clip in clips if clip.label]
    given = sorted({name for clip in labelled for name in clip.split.split("|") if name})
    if any(_part_of(name) for name in given):  # one list of everything says nothing
        return _given_train_test(labelled, given)
    tested = _carved(labelled, fraction, [seed])
    train = [clip for clip in labelled if clip.group not in tested and clip.ok]
    test = [clip for clip in labelled if clip.group in tested]
    notes = [f"train {len(train)}, test {len(test)}, groups kept whole"]
    if missing := sorted({clip.label for clip in labelled} - {clip.label for clip in test}):
        notes.append(f"no test clips for {len(missing)} classes with a single source video: {', '.join(missing[:5])}")
    if missing := sorted({clip.label for clip in labelled} - {clip.label for clip in train}):
        notes.append(f"no training clips for {len(missing)} classes: {', '.join(missing[:5])}")
    return train, test, f"own split of the ingested data, split seed {seed}", notes


def _carved(clips: Sequence[Clip], fraction: float, seed: Sequence[int]) -> set[str]:
    """Groups that make up about ``fraction`` of each class, at least one of a class that has two.

    A group of several classes goes whole; a class that has no choice left keeps what the others decided. A group is
    only taken if that does not bring the class further from its share.
    """
    chosen: set[str] = set()
    decided: set[str] = set()
    for label, members in sorted(_by(clips, "label").items()):
        sizes = Counter(clip.group for clip in members)
        free = [group for group in sorted(sizes) if group not in decided]
        order = [free[i] for i in np.random.default_rng([*seed, *label.encode()]).permutation(len(free))]
        wanted = max(1, round(fraction * len(members)))
        taken = sum(size for group, size in sizes.items() if group in chosen)
        kept = sum(size for group, size in sizes.items() if group in decided - chosen)
        for group in order:
            last = not kept and sum(other not in chosen for other in free) == 1
            if not last and abs(taken + sizes[group] - wanted) <= abs(taken - wanted):
                chosen.add(group)
                taken += sizes[group]
        if not taken and len(order) > (0 if kept else 1):
            chosen.add(min(order, key=lambda group: sizes[group]))
        decided |= sizes.keys()
    return chosen


def part_as_given(clips: Sequence[Clip], part: str) -> list[Clip]:
    """Clips of the folders or lists that are named for ``part`` ("train" or "test"); all if none is."""
    parts = _parts(sorted({name for clip in clips for name in clip.split.split("|") if name}))
    members = [c for c in clips if any(parts.get(name) == part for name in c.split.split("|"))]
    return members or list(clips)


def _parts(names: Sequence[str]) -> dict[str, str]:
    """What each name is for; where there are lists for test and for validation, the latter are for neither."""
    parts = {name: part for name in names if (part := _part_of(name))}
    if {"test", "validation"} <= set(parts.values()):
        return parts
    return {name: "test" if part == "validation" else part for name, part in parts.items()}


def _given_train_test(clips: Sequence[Clip], names: Sequence[str]) -> tuple[list[Clip], list[Clip], str, list[str]]:
    parts = _parts(names)
    unclear = [name for name in names if name not in parts]
    if unclear or not {"train", "test"} <= set(parts.values()):
        raise UserError(
            f"the data was ingested from {', '.join(names)}, and which of these is for training and which for "
            "testing is unclear; name lists or folders like 'train' and 'test' or 'val', or pass --lists DIR"
        )
    train, test, neither = (
        [c for c in clips if part in {parts[n] for n in c.split.split("|") if n}]
        for part in ("train", "test", "validation")
    )
    both = {c.clip_id for c in train} & {c.clip_id for c in test}
    if both:
        raise UserError(f"{len(both)} clips are listed both for training and for testing; take them out of one list")
    notes = []
    if neither:
        notes.append(f"{len(neither)} clips for validation are left out (protocol.holdout holds out of train)")
    if unsaid := sum(not clip.split for clip in clips):
        notes.append(f"{unsaid} clips whose split nobody said are left out")
    if unseen := sorted({c.label for c in test} - {c.label for c in train}):
        notes.append(f"{len(unseen)} classes have no training clips and are not used: {', '.join(unseen[:5])}")
    source = f"split as given by {', '.join(sorted(parts)[:4])}: {len(train)} clips to train, {len(test)} to test"
    return [c for c in train if c.ok], test, source, notes


def _part_of(name: str) -> str | None:
    """What a list or folder is for (train, validation, test), by the words in its name."""
    words = {word.rstrip("0123456789") for word in re.split(r"[^a-z0-9]+", name.lower())}
    found = [part for part, known in PART_NAMES.items() if words & set(known)]
    return found[0] if len(found) == 1 else None


def base_and_novel(train: Sequence[Clip], classes: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The more frequent half of the training classes is base, the rarer half novel (ViFi-CLIP section 4).

    Raises:
        UserError: fewer than two classes have training clips.
    """
    frequency = Counter(clip.label for clip in train)
    known = [name for name in classes if frequency[name]]
    if len(known) < 2:
        raise UserError(
            f"base-to-novel needs at least 2 classes with training clips, found {len(known)}; "
            "check the manifest of the ingested data"
        )
    ranked = sorted(known, key=lambda name: (-frequency[name], known.index(name)))
    base = set(ranked[: math.ceil(len(ranked) / 2)])
    return tuple(name for name in known if name in base), tuple(name for name in known if name not in base)


def few_shots(clips: Sequence[Clip], shots: int, seed: int, *, fewer: bool = False) -> list[Clip]:
    """Draw ``shots`` training clips of each class, in manifest order.

    Raises:
        UserError: classes have fewer, unless ``fewer`` says that all they have will do; names them.
    """
    by_label = sorted(_by(clips, "label").items())
    short = [f"{label} ({len(members)})" for label, members in by_label if len(members) < shots]
    if short and not fewer:
        least = min(len(members) for _, members in by_label)
        more = f" and {len(short) - 10} more" if len(short) > 10 else ""
        raise UserError(
            f"{len(short)} of {len(by_label)} classes have fewer than {shots} training videos: "
            f"{', '.join(short[:10])}{more}; set protocol.shots={least}, or protocol.fewer_shots=true to take what "
            "there is"
        )
    chosen: list[Clip] = []
    for label, members in by_label:
        order = np.random.default_rng([seed, 2, *label.encode()]).permutation(len(members))
        chosen += [members[i] for i in sorted(order[:shots])]
    return chosen


def hold_out(clips: Sequence[Clip], fraction: float, seed: int) -> tuple[list[Clip], list[Clip]]:
    """Carve a seeded share of every class out of train, to select on.

    At least one clip where a class has two; whole groups where it has several, so that nothing selects on
    a near-copy of what it trained on; every class keeps a training clip.
    """
    if fraction == 0:
        return list(clips), []
    groups = {label: {clip.group for clip in members} for label, members in _by(clips, "label").items()}
    keyed = [c if len(groups[c.label]) > 1 else replace(c, group=f"clip {c.clip_id}") for c in clips]
    held = _carved(keyed, fraction, [seed, 1])
    chosen = [clip.group in held for clip in keyed]
    fit = [clip for clip, out in zip(clips, chosen, strict=True) if not out]
    return fit, [clip for clip, out in zip(clips, chosen, strict=True) if out]


def hold_out_classes(classes: Sequence[str], fraction: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The training classes that stay, and a seeded share of them, at least two, to select for unseen classes.

    Raises:
        UserError: fewer than two would stay or be held out.
    """
    count = max(2, round(fraction * len(classes)))
    if len(classes) - count < 2:
        raise UserError(
            f"protocol.holdout_classes={fraction:g} of {len(classes)} training classes leaves fewer than 2 to train or "
            "to select on; set it lower, or to 0"
        )
    held = set(np.random.default_rng([seed, 3]).permutation(len(classes))[:count].tolist())
    parts = [tuple(name for i, name in enumerate(classes) if (i in held) == out) for out in (False, True)]
    return parts[0], parts[1]


def _by(clips: Iterable[Clip], attribute: str) -> dict[str, list[Clip]]:
    found: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        found[getattr(clip, attribute)].append(clip)
    return found
