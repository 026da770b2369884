"""Text-video retrieval: which captioned videos train and which are ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.config.plain import digest_of
from pipelines.protocols.finder import Finder
from pipelines.protocols.own import hold_out, own_train_test
from pipelines.protocols.request import Task
from pipelines.protocols.split import Clip, EvalSet, Example, Split, content_of
from pipelines.videos.captions import UNSPLIT, Captions, read_captions
from vlmodels.errors import UserError

CAPTIONS = "captions.json"
"""Captions of an ingested data set, in its folder."""

Captioned = list[tuple[Clip, tuple[str, ...]]]


def retrieval(task: Task) -> Split:
    """Train on (video, caption) pairs; rank the test videos for each caption and the captions for each video."""
    config = task.config
    captions = read_captions(_caption_place(task), config.dataset)
    found = _parts(task, captions)
    fit, select = hold_out([clip for clip, _ in found.train], config.holdout, task.seed)
    texts = {clip.clip_id: said for clip, said in found.train}
    table: list[str] = []

    def pairs(clips: Sequence[Clip], most: int | None = None) -> tuple[Example, ...]:
        made = []
        for clip in clips:
            for caption in texts[clip.clip_id][:most]:
                made.append(Example(clip.clip_id, len(table)))
                table.append(caption)
        return tuple(made)

    train, held = pairs(fit), pairs(select, 1)
    good = [(clip, said) for clip, said in found.test if clip.ok]
    if not good:
        raise UserError("no decodable test video with a caption")
    lost = [(clip.uri, clip.error, said) for clip, said in found.test if not clip.ok]
    lost += [(video, "never ingested", said) for video, said in found.absent]
    test = EvalSet(
        name="test",
        classes=(),
        examples=tuple(Example(clip.clip_id, i) for i, (clip, _) in enumerate(good)),
        unscored=tuple((uri, reason) for uri, reason, _ in lost),
        content=content_of([clip for clip, _ in good]),
        captions=tuple(said for _, said in good),
        lost_captions=sum(len(said) for *_, said in lost),
    )
    return Split(
        protocol="retrieval",
        seed=task.seed,
        train_classes=(),
        train=train,
        select=held,
        tests=(test,),
        source=f"captions of {task.data.name}: {len(train)} pairs of {len(fit)} videos",
        lists={"captions": digest_of(captions)},
        dataset=config.dataset or task.data.name,
        captions=tuple(table),
        content=content_of([*fit, *select]),
        notes=tuple(found.notes),
    )


@dataclass(frozen=True)
class _Parts:
    """Captioned clips that train (decodable) and that are tested, and captioned test videos that are not there."""

    train: Captioned
    test: Captioned
    absent: list[tuple[str, tuple[str, ...]]]
    notes: list[str]


def _caption_place(task: Task) -> Path:
    if task.config.captions is not None:
        return Path(task.config.captions)
    for place in (task.config.lists, task.data.folder):
        if place is not None and (Path(place) / CAPTIONS).is_file():
            return Path(place) / CAPTIONS
    raise UserError(
        f"no captions for {task.data.name}: {Path(task.data.folder) / CAPTIONS} is not there; pass --captions FILE "
        "(a CSV video,caption,split, or a published file)"
    )


def _parts(task: Task, captions: Captions) -> _Parts:
    config, find = task.config, Finder(task.data.clips)
    if list(captions) == [UNSPLIT]:
        return _own_parts(task, _found(captions[UNSPLIT], find))
    train = config.train_list or "train"
    test = next(iter(config.test_lists), None) or next((name for name in ("test", "val") if name in captions), None)
    if train not in captions or test not in captions or len(config.test_lists) > 1:
        raise UserError(
            f"captions have the splits {', '.join(captions)}; one to train on and one to test on are needed: name them "
            "train and test, or choose with --set protocol.train_list=NAME and protocol.test_lists=NAME"
        )
    fit, tested = _found(captions[train], find), _found(captions[test], find)
    both = {clip.clip_id for clip, _ in fit} & {clip.clip_id for clip, _ in tested}
    if both and not config.allow_leak:
        raise UserError(
            f"{len(both)} videos have captions in {train} and in {test} too: its score would mean nothing. Choose "
            "other splits (protocol.train_list, protocol.test_lists), or set protocol.allow_leak=true"
        )
    notes = []
    if lost := sum(not clip.ok for clip, _ in fit) + len(captions[train]) - len(fit):
        notes.append(f"{lost} of {len(captions[train])} captioned training videos are missing or cannot be decoded")
    there = {clip.clip_id for clip, _ in tested}
    absent = [(v, said) for v, said in captions[test].items() if (c := find(v)) is None or c.clip_id not in there]
    return _Parts([(clip, said) for clip, said in fit if clip.ok], tested, absent, notes)


def _own_parts(task: Task, found: Captioned) -> _Parts:
    """A seeded split of captioned videos that keeps groups whole."""
    every = {clip.clip_id: (clip, said) for clip, said in found}
    clips = [replace(clip, label="video") for clip, _ in found]
    train, test, source, notes = own_train_test(clips, task.config.test_fraction, task.config.split_seed)
    return _Parts([every[c.clip_id] for c in train], [every[c.clip_id] for c in test], [], [source, *notes])


def _found(videos: Mapping[str, tuple[str, ...]], find: Finder) -> Captioned:
    """Captioned clips, each once with all that is said of it."""
    clips: dict[str, Clip] = {}
    captions: dict[str, list[str]] = {}
    for video, said in videos.items():
        if (clip := find(video)) is not None:
            clips[clip.clip_id] = clip
            captions.setdefault(clip.clip_id, []).extend(said)
    return [(clip, tuple(captions[name])) for name, clip in clips.items()]
