"""Seeded splits of a user's own clips: clips of one source video (a group) are never torn apart."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from pipelines.splits import Clip
from vlmodels.errors import UserError

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")


def own_train_test(clips: Iterable[Clip], fraction: float, seed: int) -> tuple[list[Clip], list[Clip], list[str]]:
    """Split labelled clips into train and test without tearing a group (clips of one source) apart.

    Folders or lists named for it (``train``, and ``test`` or ``val``) are taken at their word; otherwise, and where
    no name speaks of either, a seeded share ``fraction`` of each class, at least one group, is test. Only train leaves
    out what cannot be decoded.

    Raises:
        UserError: folders or lists of which it is unclear what they are for, or that share clips.
    """
    labelled = [clip for clip in clips if clip.label]
    given = sorted({name for clip in labelled for name in clip.split.split("|") if name})
    if any(_part_of(name) for name in given):  # one list of everything says nothing
        return _given_train_test(labelled, given)
    train: list[Clip] = []
    test: list[Clip] = []
    single = []
    for label, members in sorted(_by(labelled, "label").items()):
        groups = sorted(_by(members, "group").items())
        if len(groups) < 2:
            single.append(label)
        order = np.random.default_rng([seed, *label.encode()]).permutation(len(groups))
        wanted = max(1, round(fraction * len(members))) if len(groups) > 1 else 0
        taken = 0
        for position in order[:-1] if len(groups) > 1 else ():
            if taken >= wanted:
                break
            test += groups[position][1]
            taken += len(groups[position][1])
        tested = {clip.clip_id for clip in test}
        train += [clip for clip in members if clip.clip_id not in tested and clip.ok]
    notes = [f"own split: train {len(train)}, test {len(test)}, groups kept whole"]
    if single:
        notes.append(f"no test clips for {len(single)} classes with a single source video: {', '.join(single[:5])}")
    return train, test, notes


def part_as_given(clips: Sequence[Clip], part: str) -> list[Clip]:
    """Clips of the folders or lists that are named for ``part`` ("train" or "test"); all if none is."""
    members = [c for c in clips if any(_part_of(name) == part for name in c.split.split("|"))]
    return members or list(clips)


def _given_train_test(clips: Sequence[Clip], names: Sequence[str]) -> tuple[list[Clip], list[Clip], list[str]]:
    parts = {name: part for name in names if (part := _part_of(name))}
    unclear = [name for name in names if name not in parts]
    if unclear or set(parts.values()) != {"train", "test"}:
        raise UserError(
            f"the data was ingested from {', '.join(names)}, and which of these is for training and which for "
            "testing is unclear; name lists or folders like 'train' and 'test' or 'val', or pass --lists DIR"
        )
    train, test = (
        [c for c in clips if part in {parts[n] for n in c.split.split("|") if n}] for part in ("train", "test")
    )
    both = {c.clip_id for c in train} & {c.clip_id for c in test}
    if both:
        raise UserError(f"{len(both)} clips are listed both for training and for testing; take them out of one list")
    notes = [f"split as given: {len(train)} clips to train, {len(test)} to test"]
    unseen = sorted({c.label for c in test} - {c.label for c in train})
    if unseen:
        notes.append(f"{len(unseen)} classes have no training clips and are not used: {', '.join(unseen[:5])}")
    return [c for c in train if c.ok], test, notes


def _part_of(name: str) -> str | None:
    """Whether a list or folder is for training or for testing, by the words in its name."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    found = [part for part, known in (("train", TRAIN_NAMES), ("test", TEST_NAMES)) if words & set(known)]
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
    held: set[str] = set()
    for label, members in sorted(_by(clips, "label").items()):
        groups = [group for _, group in sorted(_by(members, "group").items())]
        if len(groups) < 2:
            groups = [[clip] for clip in members]
        wanted, taken = max(1, round(fraction * len(members))), 0
        order = np.random.default_rng([seed, 1, *label.encode()]).permutation(len(groups))
        for position in order[:-1]:
            if taken >= wanted:
                break
            held |= {clip.clip_id for clip in groups[position]}
            taken += len(groups[position])
    return [c for c in clips if c.clip_id not in held], [c for c in clips if c.clip_id in held]


def _by(clips: Iterable[Clip], attribute: str) -> dict[str, list[Clip]]:
    found: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        found[getattr(clip, attribute)].append(clip)
    return found
