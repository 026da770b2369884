"""What a plan counts before anything trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """Counts and notes of a plan; they are part of the run's record.

    Attributes:
        trainable: parameters that train.
        total: parameters of backbone and method.
        frames: frames of a clip.
        train_clips: clips that train.
        select_clips: clips held out of training.
        test_clips: listed videos of each test set, undecodable ones included.
        classes: classes that train ("train") and of each test set.
        steps: optimizer steps of the whole run.
        adapter_bytes: size of the adapter's weights in fp32.
        weights_digest: SHA-256 of the backbone's weight file, or the name of its weights.
        view_notes: where the scored views differ from those of the method's paper.
        shard_notes: what a reader should know of workers and shards.
        start_notes: what a reader should know of the run that this one starts from.
        text_notes: which texts are cut.
        gmacs_video: multiply-accumulates (1e9) of the video tower for one view.
    """

    trainable: int
    total: int
    frames: int
    train_clips: int
    select_clips: int
    test_clips: Mapping[str, int]
    classes: Mapping[str, int]
    steps: int
    adapter_bytes: int
    weights_digest: str
    view_notes: tuple[str, ...]
    shard_notes: tuple[str, ...]
    start_notes: tuple[str, ...]
    gmacs_video: float
    text_notes: tuple[str, ...] = ()
