"""What a sweep says of itself: its plan for the terminal, and ``sweep.json``."""

from __future__ import annotations

import argparse
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.config.record import shown
from pipelines.sweeps.candidates import Candidate, overridden
from pipelines.sweeps.folder import SweepFolder, has_ended
from pipelines.sweeps.plan import SweepPlan
from vlmodels.errors import UserError

_SHOWN = 40


def describe_sweep(plan: SweepPlan, *, every: bool = False) -> str:
    """The resolved sweep; with ``every``, each setting checked, with what it would train or why it cannot."""
    search, first = plan.search, plan.first
    how = search.kind if search.scheduler == "none" else f"{search.kind}, {search.scheduler}"
    goals = ", ".join(f"{o.metric} ({o.mode})" for o in search.objectives)
    lines = [
        f"sweep      {plan.name}",
        f"           {plan.title}" + (f" ({plan.ablation.source})" if plan.ablation else ""),
        f"method     {plan.base.method} (preset {plan.base.preset or 'none'}) on {plan.base.backbone.name}",
        f"data       {first.split.source}",
        f"           {first.facts.train_clips} train, {first.facts.select_clips} held-out clips to choose on",
        *(f"space      {key}: {domain}" for key, domain in plan.space.items()),
        f"trials     {plan.count} ({how}), {len(plan.seeds)} seed{'s' if len(plan.seeds) > 1 else ''} each, "
        f"{plan.base.optim.epochs} epochs at most",
        f"objective  {goals}; "
        + ("every trial is scored on test too" if plan.base.test else "only the winner is tested"),
        *(f"           {note}" for note in plan.notes),
    ]
    if every and plan.candidates is not None:
        lines += [f"           {_checked(plan, candidate)}" for candidate in plan.candidates[:_SHOWN]]
        if len(plan.candidates) > _SHOWN:
            lines.append(f"           ... and {len(plan.candidates) - _SHOWN} more")
    return "\n".join(lines)


def _checked(plan: SweepPlan, candidate: Candidate) -> str:
    from pipelines.planning.plan import plan_run

    try:
        facts = plan_run(overridden(plan.base, candidate.setting, seed=candidate.seed)).facts
    except UserError as error:
        return f"{candidate.label}: cannot be trained: {error}"
    return f"{candidate.label}, seed {candidate.seed}: trains {facts.trainable:,} parameters, {facts.steps} steps"


def about(plan: SweepPlan, earlier: Mapping[str, Any] | None) -> dict[str, Any]:
    """The content of ``sweep.json``; what an ``earlier`` session has written is gone on with."""
    search, ablation, earlier = plan.search, plan.ablation, earlier or {}
    tracking = {"run_id": None, "key": uuid.uuid4().hex} | earlier.get("tracking", {})
    return {
        "name": plan.name,
        "method": plan.base.method,
        "protocol": plan.first.split.protocol,
        "dataset": plan.first.split.dataset,
        "preset": plan.base.preset,
        "backbone": plan.base.backbone.name,
        "depths": dict(plan.depths),
        "title": plan.title,
        "ablation": None if ablation is None else asdict(ablation),
        "space": {key: str(domain) for key, domain in plan.space.items()},
        "search": search.kind,
        "scheduler": search.scheduler,
        "samples": plan.count,
        "seeds": list(plan.seeds),
        "search_seed": search.seed,
        "objectives": [{"metric": o.metric, "mode": o.mode} for o in search.objectives],
        "scored_on_test": plan.base.test,
        "config": shown(plan.base),
        "notes": list(plan.notes),
        "tracking": tracking | {"uri": shown(plan.base)["tracking"]["uri"]},
        "started": earlier.get("started") or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def ending(plan: SweepPlan, folder: SweepFolder, report: Path, *, wanted: bool) -> str:
    """What a reader may want to know at the end: what failed, the winner if one was ``wanted``, where everything is."""
    winner, lines = folder.winner(), []
    if again := sum(not has_ended(record) for record in folder.trials()):
        lines.append(f"failed     {again} trials; the same command tries them again, and then chooses the winner")
    elif winner is None and wanted:
        lines.append("winner     none: no setting finished with all its seeds")
    if winner is not None:
        lines.append(f"winner     {winner['label']}, chosen by {winner['chosen_on']} {winner['chosen_value']:.1f}")
        lines += [f"           seed {run['seed']}: {run['run_dir']}" for run in winner["runs"]]
        if winner["registered"]:
            lines.append(f"           in the registry as {winner['registered']}")
    lines += [
        f"report     {report}",
        f"tracking   {_how_to_open(shown(plan.base)['tracking']['uri'])}",
        f"curves     tensorboard --logdir {folder.path / 'tune'} (pip install tensorboard)",
    ]
    return "\n".join(lines)


def _how_to_open(tracking: str) -> str:
    return f"open {tracking}" if tracking.startswith("http") else f"mlflow ui --backend-store-uri {tracking}"


def registered_name(args: argparse.Namespace, plan: SweepPlan) -> str | None:
    """The name that the user gave, else one of method, protocol and data; None for random weights."""
    if plan.base.backbone.pretrained is None:
        return None
    split = plan.first.split
    name: str = args.register or f"{plan.base.method}-{split.protocol}-{split.dataset}".replace("_", "-")
    return re.sub(r"[^\w.-]+", "-", name)
