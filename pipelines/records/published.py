"""Which published score stands beside one of ours, and what makes the two unlike.

A score is looked up by method, backbone, data set, protocol, metric and variant; a data set that is not the published
one, by its number of classes and of videos, has none.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.protocols.paper_views import PAPER_OF, PAPERS, Views, views
from pipelines.records.summary import Column, Record, Summary, title
from pipelines.videos.catalog import DATASETS, part_of
from vlmodels.errors import UserError
from vlmodels.published import Score, scores

_NEAR = 0.1
"""Share by which a test list may differ in length from the published one (videos vanish) and still be compared."""

_B2N_SHOTS = 16
_RETRIEVED = {"MSRVTT": 1000, "MSVD": 670, "LSMDC": 1000, "DiDeMo": 1004}
"""Test videos (PROTOCOLS.md section 6; MSR-VTT's 1k-A split)."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A published score, ours minus it, and what is unlike."""

    score: Score
    difference: float
    remarks: tuple[str, ...]


def beside(summary: Summary, column: Column) -> Beside | None:
    """The published score for a cell, or None."""
    if column not in summary.cells or not _same_task(summary):
        return None
    tests = _tests(summary, column)
    if tests is None:
        return None
    key = (summary.first["method"], plain(summary.backbone), summary.protocol, title(column.dataset), _metric(column))
    variants = _variants(summary.first)
    score = next((found for v in variants if (found := _printed().get((*key, v))) is not None), None)
    if score is None:
        return None
    value = float(score.value.partition("±")[0])
    remarks = (*tests, *_other_views(summary, column, score), *_differences(summary, column))
    return Beside(score, summary.cells[column].mean - value, remarks)


def plain(backbone: str) -> str:
    """The published name of a backbone: its QuickGELU twin is the same model."""
    return backbone.replace("/", "-").removesuffix("-quickgelu")


@functools.cache
def _printed() -> dict[tuple[str, ...], Score]:
    return {(s.method, s.backbone, s.protocol, s.dataset, s.metric, s.variant): s for s in scores()}


def _metric(column: Column) -> str:
    """The papers print retrieval from text to video."""
    return column.metric.removeprefix("t2v ")


def _variants(record: Record) -> tuple[str, ...]:
    """Variants of the published rows that this run is, the most particular first."""
    method, config, seen = record["method"], record["config"]["method_config"], record["scoring"]
    if method == "msta" and (not config.get("alpha", 1) or config.get("consistency") == "none"):
        return ("without L_CC",)
    if method == "viltclip" and config.get("variant", "coupled") != "coupled":
        return ()
    if method == "viltclip" and not config.get("alpha", 1):
        return ("without scenario loss",)
    if method == "finetune":
        return (str(config.get("towers", "both")),)
    several = sorted((seen["clips"], seen["crops"]), reverse=True)  # M2-CLIP prints 4 x 3 for 4 crops of 3 clips
    views = f"{several[0]}x{several[1]}" if several[1] > 1 else f"1x{several[0]}"
    return (f"{seen['frames']} frames, {views} views", "")


def _same_task(summary: Summary) -> bool:
    """Whether weights and training data are such as the papers'.

    What a run trained is known; of a start only its protocol and data set are, not its shots.
    """
    record = summary.first
    weights = record["config"]["backbone"]["pretrained"]
    if weights is None or ("." not in weights and "/" not in weights and weights != "openai"):
        return False
    start, trained = record.get("start") or {}, bool(record["history"])
    if summary.protocol == "zero_shot" and summary.started_from:
        on_kinetics = start.get("dataset") == "k400" and start.get("protocol") in ("zero_shot", "supervised")
        return on_kinetics and (not trained or record["dataset"] == "k400")
    if not trained and summary.started_from:
        same = (start.get("protocol"), start.get("dataset")) == (summary.protocol, record["dataset"])
        return same and summary.shots is None
    if not trained:
        return summary.trainable == 0
    if summary.protocol == "b2n":
        return summary.shots == _B2N_SHOTS
    return summary.protocol != "zero_shot" or record["dataset"] == "k400"


def _tests(summary: Summary, column: Column) -> tuple[str, ...] | None:
    """What the tested videos lack of the published test set; None if they are others."""
    record, dataset = summary.first, column.dataset
    if summary.protocol == "retrieval":
        expected = _RETRIEVED.get(title(dataset))
        return None if expected is None else _count(record["metrics"]["test"]["n_listed"], expected)
    if dataset not in DATASETS:
        return None
    known, told = DATASETS[dataset], list[str]()
    names = {
        name: f"{listed}_val" if summary.protocol == "b2n" else listed for name, listed in summary.sets(dataset).items()
    }
    for name, listed in names.items():
        few = summary.protocol == "few_shot" and listed != known.tests[0]
        classes = known.part_classes.get(part_of(listed), known.classes)
        if few or listed not in known.counts or len(record["classes"][name]) != classes:
            return None
        if column.metric in (name, "HM") or summary.protocol != "b2n":
            counted = _count(record["metrics"][name]["n_listed"], known.counts[listed])
            if counted is None:
                return None
            told += counted
    if summary.protocol == "zero_shot" and len(names) < len(known.tests):
        told.append(f"{len(names)} of {len(known.tests)} test lists")
    return tuple(told)


def _count(ours: int, published: int) -> tuple[str, ...] | None:
    if abs(ours - published) > _NEAR * published:
        return None
    return () if ours == published else (f"{ours:,} videos listed, published {published:,}",)


def _other_views(summary: Summary, column: Column, score: Score) -> Iterator[str]:
    """Whether videos are looked at in another way than by the paper that prints the score."""
    name = score.source.partition(" table")[0]
    paper = next(key for key, printed in PAPERS.items() if printed == name)
    published: Views = views(paper, summary.protocol, column.dataset)
    if not _looks_alike(summary.first, published):
        dense = f" at stride {published.stride}" if published.stride else ""
        yield f"other views than {name}'s {published.frames} frames{dense}, {published.clips} x {published.crops}"


def _looks_alike(record: Record, published: Views) -> bool:
    seen = record["scoring"]
    stride = seen["stride"] if seen["sampling"] == "dense" else 0
    ours = (seen["sampling"], stride, seen["clips"], seen["crops"])
    return ours == (published.sampling, published.stride_of(seen["frames"]), published.clips, published.crops)


def views_of(summary: Summary) -> str | None:
    """The paper, its method's own or MSTA's, whose views on each of its data sets a run has; None if there is none."""
    paper = PAPER_OF.get(summary.first["method"], "msta")
    try:
        wanted = [views(paper, summary.protocol, column.dataset) for column in summary.cells]
    except UserError:  # a protocol that it does not report
        return None
    return paper if all(_looks_alike(summary.first, one) for one in wanted) else None


def _differences(summary: Summary, column: Column) -> Iterator[str]:
    record, protocol = summary.first, summary.first["config"]["protocol"]
    weights = record["config"]["backbone"]["pretrained"]
    if weights != "openai" and not plain(summary.backbone).startswith("ViCLIP"):
        yield f"weights from {Path(weights).name}"
    if summary.started_from:
        yield f"started from {summary.started_from}"
    if column.dataset == "hmdb51" and protocol.get("hmdb_names") == "corrected":
        yield "the names that are swapped in HMDB51's labels put right"
    if record["history"]:
        yield from _training(summary)
    changes = method_changes(record) | (recipe_changes(record) if record["history"] else {})
    said = ", ".join(f"{key}={value}" for key, value in changes.items())
    if record["preset"] is not None:
        yield from [f"other than the preset: {said}"] if said else []
    elif record["history"]:
        yield "no preset" + (f": {said}" if said else "")
    elif said:
        yield said


def _training(summary: Summary) -> Iterator[str]:
    """What is unlike in the clips that trained, and in the choice of the epoch."""
    record, facts, protocol = summary.first, summary.first["facts"], summary.first["config"]["protocol"]
    subsets = len({r["seed"] for r in summary.records})
    if summary.protocol == "b2n" and subsets < 3:
        yield f"{subsets} of 3 training subsets"
    if protocol.get("holdout"):
        yield f"{100 * protocol['holdout']:g} % of the training clips held out"
    if summary.shots is not None:
        listed = summary.shots * facts.get("classes", {}).get("train", 0)
    else:
        known = DATASETS.get(record["dataset"])
        name = protocol.get("train_list") or (known.train if known else "")
        listed = known.counts.get(name, 0) if known else 0
        if known and name != known.train:
            yield f"trained on the list {name}"
    trained = min(r["facts"].get("train_clips", listed) + r["facts"].get("select_clips", 0) for r in summary.records)
    if trained < listed:
        yield f"{trained:,} of {listed:,} training clips"
    if record["selection"] == "test-best":
        yield "epoch chosen on test"


def method_changes(record: Record) -> dict[str, Any]:
    """Settings of the method that are not its preset's (its defaults', without one)."""
    from vlmodels import methods

    if record["method"] not in methods.names():
        return {}
    cls = methods.get(record["method"])
    preset = cls.presets.get(record["preset"] or "")
    return _unlike(record["config"]["method_config"], preset.method if preset else cls.Config())


def recipe_changes(record: Record) -> dict[str, Any]:
    """Settings of training that are not the preset's (the defaults, without one)."""
    from pipelines.config.schema import AugmentConfig, OptimConfig
    from vlmodels import methods

    if record["method"] not in methods.names():
        return {}
    preset = methods.get(record["method"]).presets.get(record["preset"] or "")
    optim, augment = record["config"]["optim"], record["config"]["augment"]
    if preset is None:
        return _unlike(optim, OptimConfig()) | _unlike(augment, AugmentConfig())
    return _unlike({**optim, **augment}, preset.recipe)


def _unlike(values: Mapping[str, Any], published: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if hasattr(published, key) and getattr(published, key) != value}
