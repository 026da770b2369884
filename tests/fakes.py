"""A tiny stand-in for ingested data: the part of ``ClipStore`` that batches and scoring read."""

from __future__ import annotations

import numpy as np

from pipelines.splits import Clip, EvalSet, Example, Split


class FakeStore:
    """``count`` clips of noise on a class colour, ``segments`` x ``offsets`` stored frames."""

    sampling, stride = "segments", 0

    def __init__(self, count=24, classes=4, segments=4, offsets=(0.25, 0.5, 0.75), size=56):
        self.segments, self.offsets, self.shape = segments, offsets, (segments * len(offsets), size, size, 3)
        self.targets = [i % classes for i in range(count)]
        self.frames_of = {}
        for i, target in enumerate(self.targets):
            noise = np.random.default_rng(i).integers(0, 60, self.shape)
            colour = np.array([(target & 1) * 150, (target >> 1 & 1) * 150, 60])
            self.frames_of[f"clip{i}"] = (noise + colour).astype(np.uint8)

    def frames(self, clip_id):
        return self.frames_of[clip_id]

    @property
    def examples(self):
        return tuple(Example(f"clip{i}", target) for i, target in enumerate(self.targets))


def clip(number, label, group="", split="", ok=True, uri=None):
    """A manifest row."""
    uri = uri or f"{label}/v_{label}_{number}.mp4"
    return Clip(f"id-{label}-{number}", uri, label, group or f"g{number}", split, ok, "" if ok else "zero bytes")


def split_of(store, classes=4):
    """A base-to-novel split that trains and tests on the same clips."""
    names = tuple(f"class {i}" for i in range(classes))
    tests = (EvalSet("base", names, store.examples), EvalSet("novel", names, store.examples))
    return Split("b2n", 1, names, store.examples, (), tests, "fake")


def folder_clips(per_group=2, groups=5, names=("clap", "run", "sit", "walk")):
    """Rows of a data set in class folders: ``groups`` source videos a class, ``per_group`` clips of each."""
    return [
        clip(f"{g}_{i}", name, group=f"{name}_g{g}") for name in names for g in range(groups) for i in range(per_group)
    ]
