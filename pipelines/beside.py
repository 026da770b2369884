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

from pipelines.data.catalog import DATASETS, part_of
from pipelines.summary import Column, Record, Summary, title
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
    remarks = (*tests, *_differences(summary))
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
    """Whether weights and training data are such as the papers'."""
    record = summary.first
    weights = record["config"]["backbone"]["pretrained"]
    if weights is None or ("." not in weights and "/" not in weights and weights != "openai"):
        return False
    if not record["history"]:  # scored as it came, or started from a trained model
        return True
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


def _differences(summary: Summary) -> Iterator[str]:
    record = summary.first
    weights = record["config"]["backbone"]["pretrained"]
    if weights != "openai" and not plain(summary.backbone).startswith("ViCLIP"):
        yield f"weights from {Path(weights).name}"
    if record["config"].get("start"):
        yield "started from a trained model"
    if summary.protocol == "b2n" and record["history"] and len(summary.records) < 3:
        yield f"{len(summary.records)} of 3 training subsets"
    notes = record["facts"].get("view_notes", ())
    if notes and not any(": as " in note for note in notes):
        yield "other views than the paper's"
    if record["history"] and (unlike := {**method_changes(record), **recipe_changes(record)}):
        yield "other than the preset: " + ", ".join(f"{key}={value}" for key, value in unlike.items())
    elif record["history"] and record["preset"] is None:
        yield "no preset"


def method_changes(record: Record) -> dict[str, Any]:
    """Settings of the method that are not its preset's (its defaults', without one)."""
    from vlmodels import methods

    if record["method"] not in methods.names():
        return {}
    cls = methods.get(record["method"])
    preset = cls.presets.get(record["preset"] or "")
    return _unlike(record["config"]["method_config"], preset.method if preset else cls.Config())


def recipe_changes(record: Record) -> dict[str, Any]:
    """Settings of training that are not the preset's; nothing without one."""
    from vlmodels import methods

    if record["method"] not in methods.names():
        return {}
    preset = methods.get(record["method"]).presets.get(record["preset"] or "")
    config = record["config"]
    return _unlike({**config["optim"], **config["augment"]}, preset.recipe) if preset else {}


def _unlike(values: Mapping[str, Any], published: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if hasattr(published, key) and getattr(published, key) != value}
