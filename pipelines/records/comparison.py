"""The published score for one of ours, and how the two runs differ.

A score is looked up by method, backbone, data set, protocol, metric and variant. If several tables print one, it is
that of the first whose views the run has, and the others are caveats. A data set whose numbers of classes or videos are
not the published ones has none.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.protocols.paper_views import PAPER_OF, PAPERS, Views, views
from pipelines.records.run_file import Facts, RunRecord
from pipelines.records.summary import Column, Summary, title
from pipelines.videos.catalog import DATASETS, part_of
from vlmodels.errors import UserError
from vlmodels.published import CLASS_NAMES, Score, scores

_NEAR = 0.1
"""Share by which a test list may differ in length from the published one (videos vanish) and still be compared."""

_B2N_SHOTS = 16
_RETRIEVED = {"MSRVTT": 1000, "MSVD": 670, "LSMDC": 1000, "DiDeMo": 1004}
"""Test videos (PROTOCOLS.md section 6; MSR-VTT's 1k-A split)."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published score, ours minus the published one, and how the two runs differ."""

    score: Score
    difference: float
    caveats: tuple[str, ...]

    @property
    def published(self) -> float:
        """The published score without its deviation."""
        return mean_of(self.score)


def compare(summary: Summary, column: Column) -> Comparison | None:
    """Compare a cell with the published score; None if none is published."""
    if column not in summary.cells or not _same_task(summary):
        return None
    tests = _tests(summary, column)
    if tests is None:
        return None
    backbone = published_name(summary.backbone)
    key = (summary.first.method, backbone, summary.protocol, title(column.dataset), _metric(column))
    printed = next((found for v in _variants(summary) if (found := _published_scores().get((*key, v)))), ())
    if not printed:
        return None
    score = next((one for one in printed if not any(_other_views(summary, column, one))), printed[0])
    caveats = (
        *tests,
        *_other_views(summary, column, score),
        *_differences(summary, column),
        *_about_score(summary, score, printed),
    )
    return Comparison(score, summary.cells[column].mean - mean_of(score), caveats)


def mean_of(score: Score) -> float:
    """Return a published score without its deviation."""
    return float(score.value.partition("±")[0])


def published_name(backbone: str) -> str:
    """Return the published name of a backbone: its QuickGELU twin is the same model."""
    return backbone.replace("/", "-").removesuffix("-quickgelu")


@functools.cache
def _published_scores() -> Mapping[tuple[str, ...], Sequence[Score]]:
    found: dict[tuple[str, ...], list[Score]] = {}
    for s in scores():
        found.setdefault((s.method, s.backbone, s.protocol, s.dataset, s.metric, s.variant), []).append(s)
    return found


def _metric(column: Column) -> str:
    """Return a metric's published name: the papers print retrieval from text to video."""
    return column.metric.removeprefix("t2v ")


def _variants(summary: Summary) -> tuple[str, ...]:
    """Return the variants of published rows that this run is, the most particular first."""
    record = summary.first
    method, config, scoring = record.method, record.config.method_config, record.scoring
    if (loss := config.get("regularise", "none")) != "none":
        whole = method == "finetune" and config.get("towers", "both") == "both"
        return (str(loss).upper(),) if whole else ()  # nobody printed other methods with these losses
    if method == "msta" and (not config.get("alpha", 1) or config.get("consistency") == "none"):
        return ("without L_CC",)
    if method == "viltclip":
        return _viltclip_variants(summary.protocol, config)
    if method == "finetune":
        return (str(config.get("towers", "both")),)
    if method == "prompts":  # ViFi-CLIP's rows; those of independent prompts on CLIP itself are viltclip's
        return ("started from ViFi-CLIP on K400",) if record.start.dataset == "k400" else ()
    several = sorted((scoring.clips, scoring.crops), reverse=True)  # M2-CLIP prints 4 x 3 for 4 crops of 3 clips
    views = f"{several[0]}x{several[1]}" if several[1] > 1 else f"1x{several[0]}"
    return (f"{scoring.frames} frames, {views} views", "")


def _viltclip_variants(protocol: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    variant, scenario = config.get("variant", "coupled"), config.get("alpha", 1)
    if variant == "coupled":
        return ("",) if scenario else ("without scenario loss",)
    text = config.get("tokens")
    if variant == "text_only":
        return (f"text_only, {text} prompts",)
    numbered = f"{variant}, {text} and {config.get('video_tokens') or text} prompts"
    # tables 1 and 4 add the scenario-guided loss later; 7 and 8 do not say whether it is there
    return (numbered, variant) if protocol == "retrieval" or not scenario else ()


def _same_task(summary: Summary) -> bool:
    """Return whether weights and training data are like the papers'.

    The record has all of a run's own training, but only protocol and data set of a start, not its shots.
    """
    record = summary.first
    weights = record.config.backbone.pretrained
    if weights is None or ("." not in weights and "/" not in weights and weights != "openai"):
        return False
    start, trained = record.start, bool(record.history)
    if summary.protocol == "zero_shot" and summary.started_from:
        on_kinetics = start.dataset == "k400" and start.protocol in ("zero_shot", "supervised")
        return on_kinetics and (not trained or record.dataset == "k400")
    if not trained and summary.started_from:
        same = (start.protocol, start.dataset) == (summary.protocol, record.dataset)
        return same and summary.shots is None
    if not trained:
        return summary.trainable == 0
    if summary.protocol == "b2n":
        return summary.shots == _B2N_SHOTS
    return summary.protocol != "zero_shot" or record.dataset == "k400"


def _tests(summary: Summary, column: Column) -> tuple[str, ...] | None:
    """Return how the tested videos differ from the published test set; None if they are others."""
    record, dataset = summary.first, column.dataset
    if summary.protocol == "retrieval":
        expected = _RETRIEVED.get(title(dataset))
        return None if expected is None else _count(record.metrics.tests["test"].n_listed, expected)
    if dataset not in DATASETS:
        return None
    known = DATASETS[dataset]
    caveats: list[str] = []
    names = {
        name: f"{listed}_val" if summary.protocol == "b2n" else listed for name, listed in summary.sets(dataset).items()
    }
    for name, listed in names.items():
        few = summary.protocol == "few_shot" and listed != known.tests[0]
        classes = known.part_classes.get(part_of(listed), known.classes)
        if few or listed not in known.counts or len(record.classes[name]) != classes:
            return None
        if column.metric in (name, "HM") or summary.protocol != "b2n":
            counted = _count(record.metrics.tests[name].n_listed, known.counts[listed])
            if counted is None:
                return None
            caveats += counted
    if summary.protocol == "zero_shot" and len(names) < len(known.tests):
        caveats.append(f"{len(names)} of {len(known.tests)} test lists")
    return tuple(caveats)


def _count(ours: int, published: int) -> tuple[str, ...] | None:
    if abs(ours - published) > _NEAR * published:
        return None
    return () if ours == published else (f"{ours:,} videos listed, published {published:,}",)


def _other_views(summary: Summary, column: Column, score: Score) -> Iterator[str]:
    """Yield whether the videos' views differ from those of the paper that prints the score."""
    name = score.source.partition(" table")[0]
    paper = next((key for key, printed in PAPERS.items() if printed == name), None)
    if paper is None:
        yield f"the views of {name} are not compared"
        return
    published: Views = views(paper, summary.protocol, column.dataset)
    if not _looks_alike(summary.first, published):
        dense = f" at stride {published.stride}" if published.stride else ""
        yield f"other views than {name}'s {published.frames} frames{dense}, {published.clips} x {published.crops}"


def _looks_alike(record: RunRecord, published: Views) -> bool:
    scoring = record.scoring
    stride = scoring.stride if scoring.sampling == "dense" else 0
    ours = (scoring.sampling, stride, scoring.clips, scoring.crops)
    return ours == (published.sampling, published.stride_of(scoring.frames), published.clips, published.crops)


def paper_with_views(summary: Summary) -> str | None:
    """Return the paper (its method's own, or MSTA's) whose views a run has on each data set; None without one."""
    paper = PAPER_OF.get(summary.first.method, "msta")
    try:
        wanted = [views(paper, summary.protocol, column.dataset) for column in summary.cells]
    except UserError:  # a protocol that it does not report
        return None
    return paper if all(_looks_alike(summary.first, one) for one in wanted) else None


def _about_score(summary: Summary, score: Score, printed: Sequence[Score]) -> Iterator[str]:
    """Yield whose class names are others than the run's, and what contradicts the published score."""
    ours = summary.first.config.protocol.class_names
    if score.class_names not in ("", ours):
        yield f"class names {CLASS_NAMES[ours]}, published {CLASS_NAMES[score.class_names]}"
    if summary.protocol == "retrieval" and score.method == "viltclip" and score.dataset == "LSMDC":
        yield "ViLT-CLIP says that it trains on LSMDC's 7,408 validation videos"
    if score.remark:
        yield f"{score.source}: {score.remark}"
    others = {other.value: other for other in reversed(printed) if other.value != score.value}
    yield from (f"{other.source} prints {other.value}" for other in others.values())


def _differences(summary: Summary, column: Column) -> Iterator[str]:
    record = summary.first
    weights = record.config.backbone.pretrained
    if weights is not None and weights != "openai" and not published_name(summary.backbone).startswith("ViCLIP"):
        yield f"weights from {Path(weights).name}"
    if record.config.backbone.statistics != "own":
        yield f"frames normalised by the mean and deviation of {record.config.backbone.statistics}"
    if summary.started_from:
        yield f"started from {summary.started_from}"
    if column.dataset == "hmdb51" and record.config.protocol.hmdb_names == "corrected":
        yield "the names that are swapped in HMDB51's labels corrected"
    if record.history:
        yield from _training(summary)
    changes = method_changes(record) | (recipe_changes(record) if record.history else {})
    settings = ", ".join(f"{key}={value}" for key, value in changes.items())
    if record.preset is not None:
        yield from [f"other than the preset: {settings}"] if settings else []
    elif record.history:
        yield f"no preset: {settings}" if settings else "no preset"
    elif settings:
        yield settings


def _training(summary: Summary) -> Iterator[str]:
    """Yield how the clips that trained and the choice of the epoch differ."""
    record = summary.first
    protocol = record.config.protocol
    subsets = len({r.seed for r in summary.records})
    if summary.protocol == "b2n" and subsets < 3:
        yield f"{subsets} of 3 training subsets"
    if protocol.holdout:
        yield f"{100 * protocol.holdout:g} % of the training clips held out"
    if protocol.holdout_classes:
        yield f"{100 * protocol.holdout_classes:g} % of the classes held out, and not scored"
    if summary.shots is not None:
        listed = summary.shots * record.facts.classes.get("train", 0)
    else:
        known = DATASETS.get(record.dataset)
        name = protocol.train_list or (known.train if known else "")
        listed = known.counts.get(name, 0) if known else 0
        if known and name != known.train:
            yield f"trained on the list {name}"
    trained = min(_trained_clips(r.facts, listed) for r in summary.records)
    if trained < listed:
        yield f"{trained:,} of {listed:,} training clips"
    if record.selection == "test-best":
        yield "epoch chosen on test"


def _trained_clips(facts: Facts, unknown: int) -> int:
    return (unknown if facts.train_clips is None else facts.train_clips) + facts.select_clips


def method_changes(record: RunRecord) -> dict[str, Any]:
    """Return the settings of the method that differ from its preset's (its defaults, without one)."""
    from vlmodels import methods

    if record.method not in methods.names():
        return {}
    cls = methods.get(record.method)
    preset = cls.presets.get(record.preset or "")
    return _different(record.config.method_config, preset.method if preset else cls.Config())


def recipe_changes(record: RunRecord) -> dict[str, Any]:
    """Return the settings of training that differ from the preset's (the defaults, without one)."""
    from pipelines.config.schema import AugmentConfig, OptimConfig
    from vlmodels import methods

    if record.method not in methods.names():
        return {}
    preset = methods.get(record.method).presets.get(record.preset or "")
    optim, augment = record.config.optim, record.config.augment
    if preset is None:
        return _different(optim, OptimConfig()) | _different(augment, AugmentConfig())
    return _different({**optim, **augment}, preset.recipe)


def _different(values: Mapping[str, Any], published: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if hasattr(published, key) and getattr(published, key) != value}
