"""Seeded splits of a user's own clips: clips of one source video (a group) stay together."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipelines.protocols.split import Clip
from pipelines.videos.split_names import split_in_name
from vlmodels.errors import UserError


class TrainTest(NamedTuple):
    """Training and test clips.

    Attributes:
        train: decodable clips to train on.
        test: clips to score, decodable or not.
        source: how they were split.
        notes: what a reader of the result should know.
    """

    train: list[Clip]
    test: list[Clip]
    source: str
    notes: list[str]


def own_train_test(clips: Iterable[Clip], fraction: float, seed: int) -> TrainTest:
    """Split labelled clips into train and test, and keep groups (clips of one source) whole.

    Folders or lists whose names say it (``train``, and ``test`` or ``val``) decide; if no name does, a seeded share
    ``fraction`` of each class, at least one group, is test. Only train leaves out undecodable clips.

    Raises:
        UserError: folders or lists with unclear names, or that share clips.
    """
    labelled = [clip for clip in clips if clip.label]
    given = sorted({name for clip in labelled for name in clip.split.split("|") if name})
    if any(split_in_name(name) for name in given):  # not so if there is one list of everything
        return _given_train_test(labelled, given)
    tested = _drawn_groups(labelled, fraction, [seed])
    train = [clip for clip in labelled if clip.group not in tested and clip.ok]
    test = [clip for clip in labelled if clip.group in tested]
    notes = [f"train {len(train)}, test {len(test)}, groups kept whole"]
    if missing := sorted({clip.label for clip in labelled} - {clip.label for clip in test}):
        notes.append(f"no test clips for {len(missing)} classes with a single source video: {', '.join(missing[:5])}")
    if missing := sorted({clip.label for clip in labelled} - {clip.label for clip in train}):
        notes.append(f"no training clips for {len(missing)} classes: {', '.join(missing[:5])}")
    return TrainTest(train, test, f"own split of the ingested data, split seed {seed}", notes)


def _drawn_groups(clips: Sequence[Clip], fraction: float, seed: Sequence[int]) -> set[str]:
    """Draw groups that make up about ``fraction`` of each class, at least one of a class that has two.

    A group of several classes stays whole; a class without a choice left keeps what the others decided. A group is only
    drawn if that does not bring the class further from its share.
    """
    chosen: set[str] = set()
    decided: set[str] = set()
    for label, members in sorted(_by_label(clips).items()):
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
    """Return the clips of the folders or lists whose names say ``part`` ("train" or "test"); all if no name does."""
    parts = _parts(sorted({name for clip in clips for name in clip.split.split("|") if name}))
    members = [c for c in clips if any(parts.get(name) == part for name in c.split.split("|"))]
    return members or list(clips)


def _parts(names: Sequence[str]) -> Mapping[str, str]:
    """Return the part that each name stands for; validation counts as test if there is no test part."""
    parts = {name: part for name in names if (part := split_in_name(name))}
    if {"test", "validation"} <= set(parts.values()):
        return parts
    return {name: "test" if part == "validation" else part for name, part in parts.items()}


def _given_train_test(clips: Sequence[Clip], names: Sequence[str]) -> TrainTest:
    """Split clips by the folders or lists that hold them."""
    parts = _parts(names)
    unclear = [name for name in names if name not in parts]
    if unclear or not {"train", "test"} <= set(parts.values()):
        raise UserError(
            f"the data was ingested from {', '.join(names)}, and which of these is for training and which for "
            "testing is unclear; name lists or folders like 'train' and 'test' or 'val', or pass --lists DIR"
        )
    train = _clips_of_part(clips, parts, "train")
    test = _clips_of_part(clips, parts, "test")
    neither = _clips_of_part(clips, parts, "validation")
    both = {c.clip_id for c in train} & {c.clip_id for c in test}
    if both:
        raise UserError(f"{len(both)} clips are listed both for training and for testing; take them out of one list")
    notes = []
    if neither:
        notes.append(f"{len(neither)} clips for validation are left out (protocol.holdout holds out of train)")
    if unnamed := sum(not clip.split for clip in clips):
        notes.append(f"{unnamed} clips without a split are left out")
    if unseen := sorted({c.label for c in test} - {c.label for c in train}):
        notes.append(f"{len(unseen)} classes have no training clips and are not used: {', '.join(unseen[:5])}")
    source = f"split as given by {', '.join(sorted(parts)[:4])}: {len(train)} clips to train, {len(test)} to test"
    return TrainTest([c for c in train if c.ok], test, source, notes)


def _clips_of_part(clips: Sequence[Clip], parts: Mapping[str, str], part: str) -> list[Clip]:
    return [clip for clip in clips if part in {parts[name] for name in clip.split.split("|") if name}]


def base_and_novel(train: Sequence[Clip], classes: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the more frequent half of the training classes (base) and the rarer half (novel; ViFi-CLIP section 4).

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
        UserError: classes have fewer, unless ``fewer`` accepts all that they have; the message names them.
    """
    by_label = sorted(_by_label(clips).items())
    short = [f"{label} ({len(members)})" for label, members in by_label if len(members) < shots]
    if short and not fewer:
        least = min(len(members) for _, members in by_label)
        more = f" and {len(short) - 10} more" if len(short) > 10 else ""
        raise UserError(
            f"{len(short)} of {len(by_label)} classes have fewer than {shots} training videos: "
            f"{', '.join(short[:10])}{more}; set protocol.shots={least}, or protocol.fewer_shots=true to take all "
            "videos of these classes"
        )
    chosen: list[Clip] = []
    for label, members in by_label:
        order = np.random.default_rng([seed, 2, *label.encode()]).permutation(len(members))
        chosen += [members[i] for i in sorted(order[:shots])]
    return chosen


def hold_out(clips: Sequence[Clip], fraction: float, seed: int) -> tuple[list[Clip], list[Clip]]:
    """Return the clips to train on, and a seeded share of every class to select on.

    At least one clip is held out of a class that has two, and whole groups of a class that has several, because clips
    of a group are near-copies; every class keeps a training clip.
    """
    if fraction == 0:
        return list(clips), []
    groups = {label: {clip.group for clip in members} for label, members in _by_label(clips).items()}
    keyed = [c if len(groups[c.label]) > 1 else replace(c, group=f"clip {c.clip_id}") for c in clips]
    drawn = _drawn_groups(keyed, fraction, [seed, 1])
    fit = [clip for clip, key in zip(clips, keyed, strict=True) if key.group not in drawn]
    held = [clip for clip, key in zip(clips, keyed, strict=True) if key.group in drawn]
    return fit, held


def hold_out_classes(classes: Sequence[str], fraction: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes to train on, and a seeded share, at least two, to select for unseen classes.

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
    kept = tuple(name for i, name in enumerate(classes) if i not in held)
    unseen = tuple(name for i, name in enumerate(classes) if i in held)
    return kept, unseen


def _by_label(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    found: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        found[clip.label].append(clip)
    return found
