"""What a protocol makes: the clips that train, those that select, and the test sets, as plain hashed data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from pipelines.config.plain import digest_of
from vlmodels.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


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
    sha256: str = ""  # of the video file


@dataclass(frozen=True, slots=True)
class Example:
    """A clip and the index of its class in the class list of its set (of its caption, where pairs train)."""

    clip_id: str
    target: int


@dataclass(frozen=True)
class EvalSet:
    """Clips scored among ``classes`` alone; ``unscored`` are listed but undecodable and count as wrong.

    Attributes:
        name: base, novel, or data set and list (``ucf101/val2``): what is before the slash is averaged over.
        classes: class names in label order; none for retrieval.
        examples: decodable clips.
        unscored: (uri, reason) of the others.
        data: folder of the ingested data set; "" for the one that is trained on.
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
        """Videos that the list names, decodable or not."""
        return len(self.examples) + len(self.unscored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """How a video is looked at when it is scored; softmax scores of its views are averaged (ViFi-CLIP's rule)."""

    frames: int
    clips: int
    crops: int
    sampling: str = "segments"
    stride: int = 0  # frames between two of a clip, if sampling is dense
    short_side: int = 0  # of the stored frames, in pixels
    average: Literal["softmax", "features"] = "softmax"  # features: retrieval has no classes to be sure of


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
    select_novel: EvalSet | None = None  # training classes that were held out whole
    scoring: Scoring | None = None
    dataset: str = ""
    captions: tuple[str, ...] = ()  # that the training examples' targets count, in retrieval
    content: str = ""  # digest of the files of the training examples
    lists: Mapping[str, str] = field(default_factory=dict, compare=False)  # file name to SHA-256
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def digest(self) -> str:
        """SHA-256 over everything that is trained on and scored, and over how it is looked at."""
        return digest_of(
            [
                [self.protocol, self.train_classes, self.captions, self.content],
                [(e.clip_id, e.target) for e in self.train],
                [(e.clip_id, e.target) for e in self.select],
                None if self.scoring is None else asdict(self.scoring),
                [_parts(test) for test in self.tests],
                *([_parts(self.select_novel)] if self.select_novel else []),
            ]
        )


def _parts(test: EvalSet) -> list[object]:
    """What is scored; a data set's folder may be called otherwise."""
    return [
        [test.name.rpartition("/")[2], test.classes, test.content, test.captions, test.lost_captions],
        [(e.clip_id, e.target) for e in test.examples],
        [uri for uri, _ in test.unscored],
    ]


@dataclass(frozen=True)
class Source:
    """An ingested data set as protocols see it: no frames, only rows."""

    name: str
    folder: str
    clips: tuple[Clip, ...]
    classes: tuple[str, ...]


NOTHING = Source("", "", (), ())
"""Stands for data to train on where other data is only scored."""


def clips_of(manifest: pa.Table) -> tuple[Clip, ...]:
    """Read the columns of the manifest that protocols use."""
    columns = ("clip_id", "uri", "label", "group", "split", "status", "error", "sha256")
    rows = zip(*(manifest.column(name).to_pylist() for name in columns), strict=True)
    return tuple(Clip(i, u, label, g, s, status == "ok", e or "", h or "") for i, u, label, g, s, status, e, h in rows)


def examples(clips: Iterable[Clip], classes: Sequence[str]) -> tuple[Example, ...]:
    """Examples of clips whose label is in ``classes``."""
    index: Mapping[str, int] = {name: i for i, name in enumerate(classes)}
    return tuple(Example(clip.clip_id, index[clip.label]) for clip in clips)


def content_of(clips: Iterable[Clip]) -> str:
    """Digest of the files of these clips, in order."""
    return hashlib.sha256("\n".join(clip.sha256 for clip in clips).encode()).hexdigest()


def eval_set(name: str, clips: Iterable[Clip], classes: Sequence[str], data: str = "") -> EvalSet:
    """The test set of those ``clips`` whose label is in ``classes``.

    Raises:
        UserError: if none of them could be decoded.
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
    """Classes that a method is built for: those that train, else those that are scored first; none for retrieval."""
    return split.train_classes or split.tests[0].classes
