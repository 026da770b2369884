"""A tiny stand-in for ingested data: the part of ``ClipStore`` that batches and scoring read."""

from __future__ import annotations

import copy
import functools
import json

import numpy as np

from pipelines.protocols.split import Clip, EvalSet, Example, Split
from pipelines.records import run_file
from pipelines.records.run_file import RECORD, RunRecord
from vlmodels.sampling import dense_pool_indices, pool_starts


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

    def fetch(self, shards):
        pass

    def place(self, clip_id):
        return f"{int(clip_id[4:]) % 5}.arrow", int(clip_id[4:]) // 5

    @property
    def examples(self):
        return tuple(Example(f"clip{i}", target) for i, target in enumerate(self.targets))


class DenseStore(FakeStore):
    """Dense clips of 8 frames at stride 16, each frame showing its number in the video."""

    stride = 16

    def __init__(self, lengths, pool):
        super().__init__(len(lengths), segments=8, offsets=pool_starts(pool), size=2)
        self.lengths = {f"clip{i}": n for i, n in enumerate(lengths)}
        for clip_id, n in self.lengths.items():
            numbers = dense_pool_indices(n, 8, self.stride, pool)
            self.frames_of[clip_id] = np.broadcast_to(numbers[:, None, None, None], self.shape)

    def n_frames(self, clip_id):
        return self.lengths[clip_id]


def clip(number, label, group="", split="", ok=True, uri=None):
    """A manifest row."""
    uri = uri or f"{label}/v_{label}_{number}.mp4"
    return Clip(
        f"id-{label}-{number}", uri, label, group or f"{label}_g{number}", split, ok, "" if ok else "zero bytes"
    )


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


def record_of(*args, changes=None, **fields):
    """A made-up record: ``record_json`` with the values of ``changes``, by dotted paths."""
    return changed(record_json(*args, **fields), changes or {})


def changed(record, changes):
    """The record, or its JSON, with other values at dotted paths: ``{"metrics.base.n_listed": 770}``."""
    values = copy.deepcopy(record.to_json() if isinstance(record, RunRecord) else record)
    for path, value in changes.items():
        *parents, last = path.split(".")
        functools.reduce(lambda holder, key: holder.setdefault(key, {}), parents, values)[last] = value
    return RunRecord.model_validate(values)


def record_json(protocol="b2n", method="msta", dataset="toy-ucf", *, seed=1, scores=60.0, sets=None, **fields):
    """A made-up ``run.json``.

    ``sets``: test set to classes (by default the protocol's); ``scores``: top-1 of all, or by set. Settings by dots, as
    ``config={"protocol.shots": 4}``; other fields replace the record's.
    """
    classes = {
        "b2n": {"base": ("a", "b"), "novel": ("c", "d")},
        "zero_shot": {f"{dataset}/val{i}": ("a", "b") for i in (1, 2, 3)},
        "retrieval": {"test": ()},
    }.get(protocol, {"val1": ("a", "b")})
    sets = sets or classes
    top1 = scores if isinstance(scores, dict) else dict.fromkeys(sets, scores)
    counts = {"n_listed": 8, "n_scored": 8, "n_quarantined": 0}
    ranked = {"R@1": 40.0, "R@5": 70.0, "R@10": 80.0, "MdR": 2.0, "MnR": 13.5}
    metrics = {
        name: {"t2v": ranked, "v2t": ranked, "n_captions": 8, "chance": 100 / 8, **counts}
        if protocol == "retrieval"
        else {"top1": top1[name], "top5": min(100.0, top1[name] + 20), "chance": 100 / len(names), **counts}
        for name, names in sets.items()
    }
    config = {
        "backbone": {"name": "ViCLIP-B-16", "pretrained": "weights/viclip.pt"},
        "method_config": {},
        "protocol": {"shots": 16},
        "optim": {},
        "augment": {},
        "data": {"clips": 1, "crops": 1},
        "start": None,
        "tracking": {"register": None, "alias": "champion"},
    }
    for key, value in fields.pop("config", {}).items():
        group, _, name = key.rpartition(".")
        (config[group] if group else config)[name] = value
    trains = method != "zeroshot"
    history = [{"epoch": e + 1.0, "loss": 1 / (e + 1), "train_top1": 50.0 + e, "seconds": 1.0} for e in range(3)]
    facts = {"trainable": 1234 * trains, "split_source": "lists", "notes": [], "view_notes": [], "frames": 8}
    return {
        "schema": 2,
        "name": f"{protocol}-{method}-{dataset}-{seed}",
        "group": f"{protocol}-{method}-{dataset}",
        "protocol": protocol,
        "dataset": dataset,
        "method": method,
        "preset": None,
        "seed": seed,
        "scoring": {"frames": 8, "clips": 1, "crops": 1, "sampling": "segments", "stride": 0, "average": "softmax"},
        "lists": {},
        "config": config,
        "metrics": metrics,
        "cost": {"peak_memory_mb": 900.0, "scored_views_per_second": 50.0, "gmacs_video": 188.2},
        "history": history * trains,
        "selection": "last",
        "epoch_kept": 3,
        "facts": facts | fields.pop("facts", {}),
        "classes": {name: list(names) for name, names in sets.items()},
        "unscored": {name: [] for name in sets},
        "seconds": {"total": 12.0},
        "restarts": 0,
        "finished": "2026-01-01T00:00:00Z",
        "tracking": {"run_id": None},
        **fields,
    }


def decision_json():
    """A made-up ``decision`` of ``run.json``: of held-out clips, and of base-to-novel's test sets."""

    def rate(clips, of, low, high):
        return {"clips": clips, "of": of, "rate": clips / of, "low": low, "high": high}

    def known(clips, right):
        empty = [{"clips": 0, "confidence": 0.0, "accuracy": 0.0}] * 13
        bins = [
            {"clips": clips - 10, "confidence": 0.9, "accuracy": 0.8},
            {"clips": 10, "confidence": 1.0, "accuracy": 0.9},
        ]
        counts = {"known": clips, "right": right, "unknown": 0, "misses": rate(3, 60, 0.017, 0.137)}
        return counts | {"ece": 0.12, "ece_scaled": 0.03, "bins": empty + bins, "bins_scaled": empty + bins}

    novel = {"known": 0, "right": 0, "unknown": 20, "false_alarms": rate(6, 20, 0.145, 0.519)}
    sets = {"select": known(70, 60), "base": known(80, 60), "novel": novel}
    return {"temperature": 1.7, "threshold": 0.4, "miss_rate": 0.05, "notes": [], "sets": sets}


def predictions_of(record, **kwargs):
    """Made-up ``predictions.npz`` of a record."""
    return predictions_for(record.classes, **kwargs)


def predictions_for(sets, *, videos=8, width=6, seed=0, shift=1.0):
    """Predictions of test sets, by name to classes: clusters around class features; ``shift`` pulls clips to theirs."""
    arrays = {}
    for name, classes in sets.items():
        if not classes:
            continue
        random = np.random.default_rng(seed)
        text = random.normal(size=(len(classes), width))
        target = np.arange(videos) % len(classes)
        video = shift * text[target] + random.normal(size=(videos, width))
        score = np.exp(video @ text.T / 4)
        arrays |= {
            f"{name}/clip_id": np.array([f"clip{i}" for i in range(videos)]),
            f"{name}/target": target,
            f"{name}/score": (score / score.sum(1, keepdims=True)).astype(np.float32),
            f"{name}/video": video.astype(np.float16),
            f"{name}/text": text.astype(np.float16),
        }
    return arrays


def leave_run(folder, record, arrays=None):
    """Write a record, and predictions that fit it, as a run does; return the run's folder."""
    folder = folder / record.name
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "predictions.npz", **(predictions_of(record) if arrays is None else arrays))
    run_file.write(folder, record)
    return folder


def leave_json(folder, record):
    """Write the JSON of a record, sound or not, as the ``run.json`` of a run; return the run's folder."""
    folder = folder / record["name"]
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "predictions.npz")
    (folder / RECORD).write_text(json.dumps(record))
    return folder
