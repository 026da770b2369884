"""Text-video retrieval: which captioned videos train and which are ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.data.captions import read_captions
from pipelines.own_splits import hold_out, own_train_test
from pipelines.splits import Clip, EvalSet, Example, Split, content_of
from pipelines.task import Finder, Task
from vlmodels.errors import UserError

CAPTIONS = "captions.json"
"""Captions of an ingested data set, in its folder."""

Captioned = list[tuple[Clip, tuple[str, ...]]]


def retrieval(task: Task) -> Split:
    """Train on (video, caption) pairs; rank the test videos for each caption and the captions for each video."""
    config = task.config
    captions = read_captions(_caption_place(task), config.dataset)
    find = Finder(task.data.clips)
    parts, notes = _caption_parts(task, captions, find)
    fit, select = hold_out([c for c, _ in parts["train"]], config.holdout, task.seed)
    texts = {clip.clip_id: said for clip, said in parts["train"]}
    table: list[str] = []

    def pairs(clips: Sequence[Clip], most: int | None = None) -> tuple[Example, ...]:
        found = []
        for clip in clips:
            for caption in texts[clip.clip_id][:most]:
                found.append(Example(clip.clip_id, len(table)))
                table.append(caption)
        return tuple(found)

    train, held = pairs(fit), pairs(select, 1)
    good = [(clip, said) for clip, said in parts["test"] if clip.ok]
    lost = [(clip, said) for clip, said in parts["test"] if not clip.ok]
    if not good:
        raise UserError("no decodable test video with a caption")
    test = EvalSet(
        name="test",
        classes=(),
        examples=tuple(Example(clip.clip_id, i) for i, (clip, _) in enumerate(good)),
        unscored=tuple((clip.uri, clip.error) for clip, _ in lost),
        content=content_of([clip for clip, _ in good]),
        captions=tuple(said for _, said in good),
        lost_captions=sum(len(said) for _, said in lost),
    )
    return Split(
        protocol="retrieval",
        seed=task.seed,
        train_classes=(),
        train=train,
        select=held,
        tests=(test,),
        source=f"captions of {task.data.name}: {len(train)} pairs of {len(fit)} videos",
        dataset=config.dataset or task.data.name,
        captions=tuple(table),
        content=content_of([*fit, *select]),
        notes=tuple(notes),
    )


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


def _caption_parts(
    task: Task, captions: dict[str, dict[str, tuple[str, ...]]], find: Finder
) -> tuple[dict[str, Captioned], list[str]]:
    """Captioned clips that train and that are tested; captions without a split get a seeded one."""
    notes: list[str] = []
    found: dict[str, Captioned] = {
        name: [(clip, said) for uri, said in videos.items() if (clip := find(uri)) is not None]
        for name, videos in captions.items()
    }
    for name, videos in captions.items():
        if absent := len(videos) - len(found[name]):
            notes.append(f"{absent} of {len(videos)} captioned {name} videos were never ingested")
    test = next((name for name in (task.config.test_lists or ("test", "val")) if found.get(name)), None)
    if "train" in found and test is not None:
        if lost := sum(not clip.ok for clip, _ in found["train"]):
            notes.append(f"{lost} of {len(found['train'])} captioned training videos cannot be decoded")
        return {"train": [(c, s) for c, s in found["train"] if c.ok], "test": found[test]}, notes
    if len(found) > 1:
        raise UserError(f"captions have the splits {', '.join(found)}; 'train' and one of 'test' or 'val' are needed")
    every = {clip.clip_id: (clip, said) for pairs in found.values() for clip, said in pairs}
    clips = [replace(clip, label="video", split="") for clip, _ in every.values()]
    train, tests, told = own_train_test(clips, task.config.test_fraction, task.config.split_seed)
    parts = {name: [every[c.clip_id] for c in members] for name, members in (("train", train), ("test", tests))}
    return parts, [*notes, *told]
