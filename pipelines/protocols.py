"""Evaluation protocols: pure functions from lists, labels and a seed to the clips that train and are scored.

A protocol never looks at a frame. The same manifest, lists and seed give the same :class:`Split`, and its
digest changes if and only if what is trained on or scored changes.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.config import ProtocolConfig, digest_of
from pipelines.data.manifest import read_labels, read_list
from vlmodels.errors import UserError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of the manifest, as far as a protocol needs it."""

    clip_id: str
    uri: str
    label: str
    group: str
    split: str
    ok: bool
    error: str


@dataclass(frozen=True, slots=True)
class Example:
    """A clip and the index of its class in the class list of its set."""

    clip_id: str
    target: int


@dataclass(frozen=True)
class EvalSet:
    """Clips scored among ``classes`` alone; ``unscored`` are listed but undecodable and count as wrong."""

    name: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    unscored: tuple[tuple[str, str], ...] = ()  # (uri, reason)

    @property
    def n_listed(self) -> int:
        """Videos that the list names, decodable or not."""
        return len(self.examples) + len(self.unscored)


@dataclass(frozen=True)
class Split:
    """What a run trains on, selects on and is tested on."""

    protocol: str
    seed: int
    train_classes: tuple[str, ...]
    train: tuple[Example, ...]
    select: tuple[Example, ...]
    tests: tuple[EvalSet, ...]
    source: str
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def digest(self) -> str:
        """SHA-256 over everything that is trained on and scored."""
        return digest_of(
            [
                self.protocol,
                self.train_classes,
                [(e.clip_id, e.target) for e in (*self.train, *self.select)],
                len(self.select),
                [
                    [
                        t.name,
                        t.classes,
                        [(e.clip_id, e.target) for e in t.examples],
                        [u for u, _ in t.unscored],
                    ]
                    for t in self.tests
                ],
            ]
        )


def clips_of(manifest: pa.Table) -> list[Clip]:
    """Read the columns of the manifest that protocols use."""
    columns = ("clip_id", "uri", "label", "group", "split", "status", "error")
    rows = zip(*(manifest.column(name).to_pylist() for name in columns), strict=True)
    return [Clip(i, u, label, g, s, status == "ok", e or "") for i, u, label, g, s, status, e in rows]


def make_split(config: ProtocolConfig, clips: Sequence[Clip], classes: Sequence[str], seed: int) -> Split:
    """Apply the protocol that ``config`` names.

    Args:
        config: the protocol and its settings.
        clips: rows of the manifest.
        classes: class names in label order.
        seed: seed of an own split; number of the training subset (1, 2, 3) of published few-shot lists.

    Raises:
        UserError: unknown protocol, lists that do not fit the data, classes without usable clips.
    """
    if config.name not in PROTOCOLS:
        raise UserError(f"unknown protocol '{config.name}'{nearest(config.name, PROTOCOLS)}")
    return PROTOCOLS[config.name](config, clips, classes, seed)


# ------------------------------------------------------------------------------------------------ base to novel


def base_to_novel(config: ProtocolConfig, clips: Sequence[Clip], classes: Sequence[str], seed: int) -> Split:
    """Train on K shots of the base classes; score base and novel clips, each among its own classes.

    With published lists (ViFi-CLIP's names: ``fs_base_s{seed}_train.txt``, ``base_val.txt``,
    ``novel_val.txt``) they are read as they are. Without, the more frequent half of the training classes is
    base and the rarer half novel (ViFi-CLIP section 4), over a seeded split that keeps groups together.
    """
    if config.lists is not None:
        return _published_base_to_novel(config, clips, seed)
    train, test, notes = own_train_test(clips, config.test_fraction, seed)
    frequency = Counter(clip.label for clip in train)
    known = [name for name in classes if frequency[name]]
    if len(known) < 2:
        raise UserError(
            f"base-to-novel needs at least 2 classes with training clips, found {len(known)}; "
            "check the manifest of the ingested data"
        )
    ranked = sorted(known, key=lambda name: (-frequency[name], known.index(name)))
    base_set = set(ranked[: math.ceil(len(ranked) / 2)])
    base = tuple(name for name in known if name in base_set)
    novel = tuple(name for name in known if name not in base_set)
    chosen = _few_shots([c for c in train if c.label in base_set], config.shots, seed)
    fit, select = hold_out(chosen, config.holdout, seed)
    return Split(
        protocol="b2n",
        seed=seed,
        train_classes=base,
        train=_examples(fit, base),
        select=_examples(select, base),
        tests=tuple(_eval_set(name, test, names) for name, names in (("base", base), ("novel", novel))),
        source=f"own split of the ingested data, seed {seed}",
        notes=tuple(notes),
    )


def _published_base_to_novel(config: ProtocolConfig, clips: Sequence[Clip], seed: int) -> Split:
    folder = Path(config.lists or "")
    base = read_labels(_label_file(folder, config.base_labels, "base"))
    novel = read_labels(_label_file(folder, config.novel_labels, "novel"))
    train_list = _list_file(folder, f"fs_base_s{seed}_train")
    find = _Finder(clips)
    listed = [clip for clip, _ in find.listed(train_list, base)]
    train = [clip for clip in listed if clip.ok]
    lost = len(listed) - len(train)
    fit, select = hold_out(train, config.holdout, seed)
    tests = []
    for name, names in (("base", base), ("novel", novel)):
        rows = find.listed(_list_file(folder, f"{name}_val"), names)
        tests.append(_eval_set(name, [clip for clip, _ in rows], names))
    return Split(
        protocol="b2n",
        seed=seed,
        train_classes=tuple(base),
        train=_examples(fit, base),
        select=_examples(select, base),
        tests=tuple(tests),
        source=f"published lists in {folder.name}, training subset {seed}",
        notes=(f"{lost} of {len(listed)} listed training videos cannot be decoded",) if lost else (),
    )


def _list_file(folder: Path, stem: str) -> Path:
    for suffix in (".txt", ".txt.gz"):
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    present = sorted(p.name for p in folder.glob("*.txt*")) if folder.is_dir() else []
    raise UserError(
        f"no list {stem}.txt in {folder}{nearest(stem + '.txt', present)}; "
        + (f"lists there: {', '.join(present)}" if present else "the folder has no lists (protocol.lists)")
    )


def _label_file(folder: Path, given: str | None, part: str) -> Path:
    path = Path(given) if given else folder / f"{part}_labels.csv"
    if not path.is_file():
        raise UserError(f"no label file {path}; pass --set protocol.{part}_labels=CSV")
    return path


class _Finder:
    """Finds listed paths among the ingested clips: as they are, else by a file name that is unique."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._by_uri = {clip.uri: clip for clip in clips}
        names: dict[str, list[Clip]] = defaultdict(list)
        for clip in clips:
            names[clip.uri.rsplit("/", 1)[-1]].append(clip)
        self._by_name = {name: found[0] for name, found in names.items() if len(found) == 1}

    def listed(self, path: Path, classes: Sequence[str]) -> list[tuple[Clip, int]]:
        """Clips that the list names, each with the label and name that the list gives it."""
        rows, absent = [], []
        for line in read_list(path, n_classes=len(classes)):
            clip = self._by_uri.get(line.path) or self._by_name.get(line.path.rsplit("/", 1)[-1])
            if clip is None:
                absent.append(line.path)
                continue
            name = classes[line.label]
            rows.append((Clip(clip.clip_id, clip.uri, name, clip.group, clip.split, clip.ok, clip.error), line.label))
        if absent:
            raise UserError(
                f"{path.name}: {len(absent)} of {len(absent) + len(rows)} listed videos were never ingested "
                f"(first: {absent[0]}); run pipelines/ingest.py with this list too"
            )
        return rows


# ------------------------------------------------------------------------------------------------- own splits


def own_train_test(clips: Iterable[Clip], fraction: float, seed: int) -> tuple[list[Clip], list[Clip], list[str]]:
    """Split labelled clips into train and test without tearing a group (clips of one source) apart.

    Folders or lists named for it (``train``, and ``test`` or ``val``) are taken at their word; otherwise a seeded
    share ``fraction`` of each class, at least one group, is test.
    """
    labelled = [clip for clip in clips if clip.label]
    given = sorted({name for clip in labelled for name in clip.split.split("|") if name})
    if given:
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


def _few_shots(clips: Sequence[Clip], shots: int, seed: int) -> list[Clip]:
    chosen: list[Clip] = []
    for label, members in sorted(_by(clips, "label").items()):
        order = np.random.default_rng([seed, 2, *label.encode()]).permutation(len(members))
        chosen += [members[i] for i in sorted(order[:shots])]
    return chosen


def _by(clips: Iterable[Clip], attribute: str) -> dict[str, list[Clip]]:
    found: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        found[getattr(clip, attribute)].append(clip)
    return found


def _examples(clips: Iterable[Clip], classes: Sequence[str]) -> tuple[Example, ...]:
    index: Mapping[str, int] = {name: i for i, name in enumerate(classes)}
    return tuple(Example(clip.clip_id, index[clip.label]) for clip in clips)


def _eval_set(name: str, clips: Iterable[Clip], classes: Sequence[str]) -> EvalSet:
    members = [clip for clip in clips if clip.label in set(classes)]
    if not any(clip.ok for clip in members):
        raise UserError(f"no decodable test clip of the {name} classes ({', '.join(list(classes)[:3])}, ...)")
    return EvalSet(
        name=name,
        classes=tuple(classes),
        examples=_examples([clip for clip in members if clip.ok], classes),
        unscored=tuple((clip.uri, clip.error) for clip in members if not clip.ok),
    )


PROTOCOLS = {"b2n": base_to_novel}
