"""The protocol of text-video retrieval: which captioned videos train and which are ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pipelines.config.plain import digest_of
from pipelines.config.schema import ProtocolConfig
from pipelines.protocols.finder import Finder
from pipelines.protocols.own_split import hold_out, own_train_test
from pipelines.protocols.request import SplitRequest
from pipelines.protocols.split import Clip, EvalSet, Example, Split, content_of
from pipelines.videos.captions import UNSPLIT, Captions, read_captions
from vlmodels.errors import UserError

CAPTIONS = "captions.json"
"""The file of captions in the folder of an ingested data set."""


class Captioned(NamedTuple):
    """A clip and all its captions."""

    clip: Clip
    captions: tuple[str, ...]


def retrieval(request: SplitRequest) -> Split:
    """Train on (video, caption) pairs; rank the test videos for each caption and the captions for each video."""
    config, data = request.config, request.data
    captions = read_captions(_caption_place(request), config.dataset)
    parts = _parts(request, captions)
    fit, select = hold_out([one.clip for one in parts.train], config.holdout, request.seed)
    captions_of = {one.clip.clip_id: one.captions for one in parts.train}
    train_pairs = [(clip, caption) for clip in fit for caption in captions_of[clip.clip_id]]
    select_pairs = [(clip, captions_of[clip.clip_id][0]) for clip in select]
    pairs = [*train_pairs, *select_pairs]
    examples = [Example(clip.clip_id, number) for number, (clip, _) in enumerate(pairs)]
    return Split(
        protocol=config.name,
        seed=request.seed,
        train_classes=(),
        train=tuple(examples[: len(train_pairs)]),
        select=tuple(examples[len(train_pairs) :]),
        tests=(_test_set(parts),),
        source=f"captions of {data.name}: {len(train_pairs)} pairs of {len(fit)} videos",
        lists={"captions": digest_of(captions)},
        dataset=config.dataset or data.name,
        captions=tuple(caption for _, caption in pairs),
        content=content_of([*fit, *select]),
        notes=tuple(parts.notes),
    )


@dataclass(frozen=True)
class _Parts:
    """Captioned clips that train (decodable) and that are tested, and the captions of absent test videos."""

    train: Sequence[Captioned]
    test: Sequence[Captioned]
    absent: Mapping[str, tuple[str, ...]]
    notes: Sequence[str]


def _test_set(parts: _Parts) -> EvalSet:
    """Return the test set; videos that are undecodable or absent are unscored, and their captions lost."""
    good = [one for one in parts.test if one.clip.ok]
    bad = [one for one in parts.test if not one.clip.ok]
    if not good:
        raise UserError("no decodable test video with a caption")
    unscored = [(one.clip.uri, one.clip.error) for one in bad]
    unscored += [(video, "never ingested") for video in parts.absent]
    lost = [*(one.captions for one in bad), *parts.absent.values()]
    return EvalSet(
        name="test",
        classes=(),
        examples=tuple(Example(one.clip.clip_id, number) for number, one in enumerate(good)),
        unscored=tuple(unscored),
        content=content_of([one.clip for one in good]),
        captions=tuple(one.captions for one in good),
        lost_captions=sum(len(captions) for captions in lost),
    )


def _caption_place(request: SplitRequest) -> Path:
    config, data = request.config, request.data
    if config.captions is not None:
        return Path(config.captions)
    for folder in (config.lists, data.folder):
        if folder is not None and (Path(folder) / CAPTIONS).is_file():
            return Path(folder) / CAPTIONS
    raise UserError(
        f"no captions for {data.name}: {Path(data.folder) / CAPTIONS} is not there; pass --captions FILE "
        "(a CSV video,caption,split, or a published file)"
    )


def _parts(request: SplitRequest, captions: Captions) -> _Parts:
    config, find = request.config, Finder(request.data.clips)
    if list(captions) == [UNSPLIT]:
        return _own_parts(request, _captioned(captions[UNSPLIT], find))
    train, test = _split_names(config, captions)
    trained = _captioned(captions[train], find)
    tested = _captioned(captions[test], find)
    both = {one.clip.clip_id for one in trained} & {one.clip.clip_id for one in tested}
    if both and not config.allow_leak:
        raise UserError(
            f"{len(both)} videos have captions in {train} and in {test} too: its score would mean nothing. Choose "
            "other splits (protocol.train_list, protocol.test_lists), or set protocol.allow_leak=true"
        )
    notes = []
    if lost := sum(not one.clip.ok for one in trained) + len(captions[train]) - len(trained):
        notes.append(f"{lost} of {len(captions[train])} captioned training videos are missing or cannot be decoded")
    absent = {video: texts for video, texts in captions[test].items() if find(video) is None}
    return _Parts([one for one in trained if one.clip.ok], tested, absent, notes)


def _split_names(config: ProtocolConfig, captions: Captions) -> tuple[str, str]:
    """Return the names of the splits to train on and to test on."""
    train = config.train_list or "train"
    candidates = [*config.test_lists, *(name for name in ("test", "val") if name in captions)]
    if train not in captions or not candidates or candidates[0] not in captions or len(config.test_lists) > 1:
        raise UserError(
            f"captions have the splits {', '.join(captions)}; one to train on and one to test on are needed: name them "
            "train and test, or choose with --set protocol.train_list=NAME and protocol.test_lists=NAME"
        )
    return train, candidates[0]


def _own_parts(request: SplitRequest, found: Sequence[Captioned]) -> _Parts:
    """Return a seeded split of captioned videos that keeps groups whole."""
    config = request.config
    by_id = {one.clip.clip_id: one for one in found}
    clips = [replace(one.clip, label="video") for one in found]
    train, test, source, notes = own_train_test(clips, config.test_fraction, config.split_seed)
    return _Parts([by_id[c.clip_id] for c in train], [by_id[c.clip_id] for c in test], {}, [source, *notes])


def _captioned(videos: Mapping[str, tuple[str, ...]], find: Finder) -> list[Captioned]:
    """Return the clips of these videos, each once with all its captions."""
    clips: dict[str, Clip] = {}
    captions: dict[str, list[str]] = {}
    for video, texts in videos.items():
        if (clip := find(video)) is not None:
            clips[clip.clip_id] = clip
            captions.setdefault(clip.clip_id, []).extend(texts)
    return [Captioned(clip, tuple(captions[name])) for name, clip in clips.items()]
