"""A plan as text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.plain import to_plain
from pipelines.config.text import plural
from pipelines.planning.identity import weights_digest
from pipelines.planning.plan import Plan

if TYPE_CHECKING:
    from pipelines.protocols.split import EvalSet, Split


def describe_plan(plan: Plan, *, ahead: bool = False) -> str:
    """Return the resolved run as lines; ``ahead`` adds the forecast, as ``--dry-run`` prints it."""
    c, f = plan.config, plan.facts
    share = -(-c.optim.batch_size // c.scale.workers)
    lines = [
        f"run        {plan.name}",
        f"backbone   {c.backbone.name} ({_weights(c.backbone.pretrained)}), {f.frames} frames{_statistics(plan)}",
        f"method     {c.method} (preset {c.preset or 'none'}): "
        + ", ".join(f"{k}={v}" for k, v in c.method_config.items()),
        f"trains     {f.trainable:,} of {f.total:,} parameters; adapter {f.adapter_bytes / 1e6:.1f} MB",
        f"data       {plan.split.source}",
        f"           {f.train_clips} train, {f.select_clips} held-out {_what(plan.split)}",
        *(f"           {_test_line(test)}" for test in plan.split.tests),
        *(f"           {note}" for note in plan.notes),
        f"schedule   {c.optim.epochs} epochs, {f.steps} steps of {c.optim.batch_size} clips "
        f"({c.scale.workers} workers x {share}), lr {c.optim.lr:g}, {c.optim.precision}",
        "augment    " + ", ".join(f"{k}={v}" for k, v in to_plain(c.augment).items()),
        f"views      {c.data.clips} x {c.data.crops} per test video; epoch kept: {c.selection}",
        *_decision_lines(plan),
        f"protocol   {plan.split.protocol} on {plan.split.dataset}, digest {plan.split.digest[:12]}",
    ]
    if ahead:
        from pipelines.planning.forecast import forecast

        lines += forecast(plan)
    return "\n".join(lines)


def _statistics(plan: Plan) -> str:
    name = plan.config.backbone.statistics
    return "" if name == "own" else f", normalised by the mean and deviation of {name}"


def _decision_lines(plan: Plan) -> list[str]:
    """Say what will be chosen on the held-out clips; nothing where there are none, or no classes."""
    from pipelines.evaluation.calibration import FEWEST  # torch: late

    split, share = plan.split, plan.config.protocol.miss_rate
    if not split.select or split.captions:
        return []
    clips = plural(len(split.select), "held-out clip")
    novel = split.select_novel
    if novel is not None:
        clips += f" and {plural(len(novel.examples), 'clip')} of {len(novel.classes)} held-out classes"
    if len(split.select) < FEWEST:
        return [f'decision   no threshold of "none of these": {clips} are too few, it takes {FEWEST} right ones']
    return [f'decision   temperature, and threshold of "none of these" ({100 * share:g} % misses), chosen on {clips}']


def _weights(pretrained: str | None) -> str:
    """Return the weights' name; of a file its size and hash too."""
    if pretrained is None:
        return "random weights"
    if not Path(pretrained).is_absolute():
        return pretrained
    return f"{pretrained}, {Path(pretrained).stat().st_size / 1e6:.1f} MB, sha256 {weights_digest(pretrained)[:12]}"


def _what(split: Split) -> str:
    return "pairs" if split.captions else f"clips of {len(split.train_classes)} classes"


def _test_line(test: EvalSet) -> str:
    among = f"with {sum(map(len, test.captions))} captions" if test.captions else f"of {len(test.classes)} classes"
    bad = f" ({len(test.unscored)} undecodable, counted as wrong)" if test.unscored else ""
    return f"test '{test.name}': {test.n_listed} videos {among}{bad}"
