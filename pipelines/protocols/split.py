"""A split: the clips that train, those that select, and the test sets, with a digest of all that matters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from pipelines.config.plain import digest_of
from vlmodels.errors import UserError
from vlmodels.span import split_name

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Clip:
    """The columns of a row of the manifest that protocols need."""

    clip_id: str
    uri: str
    label: str
    group: str
    split: str
    ok: bool
    error: str
    sha256: str = ""  # of the video file; of a part of it, with the part behind it


@dataclass(frozen=True, slots=True)
class Example:
    """A clip, and the index of its class in the class list of its set (of its caption, where pairs train)."""

    clip_id: str
    target: int


@dataclass(frozen=True)
class EvalSet:
    """Clips that are scored among ``classes`` only; ``unscored`` ones are listed but undecodable and count as wrong.

    Attributes:
        name: base, novel, or data set and list (``ucf101/val2``); scores are averaged over the lists of a data set.
        classes: class names in label order; none for retrieval.
        examples: decodable clips.
        unscored: (uri, reason) of the others.
        data: folder of the ingested data set; "" for the data set of the training clips.
        content: digest of the files of the examples.
        captions: for retrieval, the captions of each example.
        lost_captions: for retrieval, captions of the videos that could not be decoded.
    """

    name: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    unscored: tuple[tuple[str, str], ...] = ()
    data: str = ""
    content: str = ""
    captions: tuple[tuple[str, ...], ...] = ()
    lost_captions: int = 0

    @property
    def n_listed(self) -> int:
        """The number of videos that the list names, decodable or not."""
        return len(self.examples) + len(self.unscored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """The views of a video that are scored; softmax scores of its views are averaged (ViFi-CLIP's rule)."""

    frames: int
    clips: int
    crops: int
    sampling: str = "segments"
    stride: int = 0  # frames between two of a clip, if sampling is dense
    short_side: int = 0  # of the stored frames, in pixels
    average: Literal["softmax", "features"] = "softmax"  # features: retrieval has no classes


@dataclass(frozen=True)
class Split:
    """The clips that a run trains on, selects on and is tested on."""

    protocol: str
    seed: int
    train_classes: tuple[str, ...]
    train: tuple[Example, ...]
    select: tuple[Example, ...]
    tests: tuple[EvalSet, ...]
    source: str
    select_novel: EvalSet | None = None  # training classes that were held out whole
    unseen: tuple[EvalSet, ...] = ()  # videos of these classes in the test sets, by the names of those
    scoring: Scoring | None = None
    dataset: str = ""
    captions: tuple[str, ...] = ()  # that the training examples' targets count, in retrieval
    content: str = ""  # digest of the files of the training examples
    lists: Mapping[str, str] = field(default_factory=dict, compare=False)  # file name to SHA-256
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def digest(self) -> str:
        """The SHA-256 of everything that is trained on and scored, and of the views."""
        return digest_of(
            [
                [self.protocol, self.train_classes, self.captions, self.content],
                [(e.clip_id, e.target) for e in self.train],
                [(e.clip_id, e.target) for e in self.select],
                None if self.scoring is None else asdict(self.scoring),
                [_parts(test) for test in self.tests],
                *([_parts(self.select_novel)] if self.select_novel else []),
                *([[_parts(one) for one in self.unseen]] if self.unseen else []),
            ]
        )


def _parts(test: EvalSet) -> list[object]:
    """Return the parts of a test set that decide its score; a data set's folder may have any name."""
    return [
        [test.name.rpartition("/")[2], test.classes, test.content, test.captions, test.lost_captions],
        [(e.clip_id, e.target) for e in test.examples],
        [uri for uri, _ in test.unscored],
    ]


@dataclass(frozen=True)
class Source:
    """An ingested data set as protocols see it: rows without frames."""

    name: str
    folder: str
    clips: tuple[Clip, ...]
    classes: tuple[str, ...]


NOTHING = Source("", "", (), ())
"""Stands for the training data where nothing trains and other data is scored."""


def clips_of(manifest: pa.Table) -> tuple[Clip, ...]:
    """Return the rows of the manifest, with the columns that protocols use."""
    names = ("clip_id", "uri", "label", "group", "split", "status", "error", "sha256")
    rows = zip(*(manifest.column(name).to_pylist() for name in names), strict=True)
    return tuple(
        Clip(clip_id, uri, label, group, split, status == "ok", error or "", _content(sha256 or "", uri))
        for clip_id, uri, label, group, split, status, error, sha256 in rows
    )


def _content(sha256: str, uri: str) -> str:
    span = split_name(uri)[1] if sha256 else None
    return sha256 if span is None else span.after(sha256)


def examples(clips: Iterable[Clip], classes: Sequence[str]) -> tuple[Example, ...]:
    """Return an example for each clip; the labels of all of them are in ``classes``."""
    index: Mapping[str, int] = {name: i for i, name in enumerate(classes)}
    return tuple(Example(clip.clip_id, index[clip.label]) for clip in clips)


def content_of(clips: Iterable[Clip]) -> str:
    """Return the digest of the files of these clips, in order."""
    return hashlib.sha256("\n".join(clip.sha256 for clip in clips).encode()).hexdigest()


def eval_set(name: str, clips: Iterable[Clip], classes: Sequence[str], data: str = "") -> EvalSet:
    """Return the test set of those ``clips`` whose label is in ``classes``.

    Raises:
        UserError: none of them could be decoded.
    """
    known = set(classes)
    members = [clip for clip in clips if clip.label in known]
    good = [clip for clip in members if clip.ok]
    if not good:
        raise UserError(f"no decodable test clip of the {name} classes ({', '.join(list(classes)[:3])}, ...)")
    return EvalSet(
        name=name,
        classes=tuple(classes),
        examples=examples(good, classes),
        unscored=tuple((clip.uri, clip.error) for clip in members if not clip.ok),
        data=data,
        content=content_of(good),
    )


def classes_of(split: Split) -> tuple[str, ...]:
    """Return the classes that a method is built for: training classes, else the first test set's; none in retrieval."""
    return split.train_classes or split.tests[0].classes
