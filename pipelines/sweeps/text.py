"""What a sweep prints: its plan before, and its winner and places afterwards."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.config.record import shown
from pipelines.config.text import plural
from pipelines.planning.plan import plan_run
from pipelines.sweeps.candidates import Candidate, overridden
from pipelines.sweeps.folder import SweepFolder
from pipelines.sweeps.plan import SweepPlan
from pipelines.sweeps.records import WinnerRecord
from vlmodels.errors import UserError

_SHOWN = 40


def describe_sweep(plan: SweepPlan, *, every: bool = False) -> str:
    """Return the plan in words; with ``every``, each setting checked: what it would train, or why it cannot."""
    search, first = plan.search, plan.first
    how = search.kind if search.scheduler == "none" else f"{search.kind}, {search.scheduler}"
    goals = ", ".join(f"{goal.metric} ({goal.mode})" for goal in search.objectives)
    tested = "every trial is scored on test too" if plan.base.test else "only the winner is tested"
    source = f" ({plan.ablation.source})" if plan.ablation else ""
    lines = [
        f"sweep      {plan.name}",
        f"           {plan.title}{source}",
        f"method     {plan.base.method} (preset {plan.base.preset or 'none'}) on {plan.base.backbone.name}",
        f"data       {first.split.source}",
        f"           {first.facts.train_clips} train, {first.facts.select_clips} held-out clips to choose on",
        *(f"space      {key}: {domain}" for key, domain in plan.space.items()),
        f"trials     {plan.count} ({how}), {plural(len(plan.seeds), 'seed')} each, "
        f"{plan.base.optim.epochs} epochs at most",
        f"objective  {goals}; {tested}",
        *(f"           {note}" for note in plan.notes),
    ]
    if every and plan.candidates is not None:
        lines += [f"           {_checked(plan, candidate)}" for candidate in plan.candidates[:_SHOWN]]
        if len(plan.candidates) > _SHOWN:
            lines.append(f"           ... and {len(plan.candidates) - _SHOWN} more")
    return "\n".join(lines)


def _checked(plan: SweepPlan, candidate: Candidate) -> str:
    try:
        facts = plan_run(overridden(plan.base, candidate.setting, seed=candidate.seed)).facts
    except UserError as error:
        return f"{candidate.label}: cannot be trained: {error}"
    return f"{candidate.label}, seed {candidate.seed}: trains {facts.trainable:,} parameters, {facts.steps} steps"


def closing_text(plan: SweepPlan, folder: SweepFolder, page: Path, *, winner_wanted: bool) -> str:
    """Return what a reader wants to know at the end: what failed, the winner if one was wanted, where everything is."""
    winner, lines = folder.winner(), []
    to_repeat = [record for record in folder.trials() if not record.ended]
    if to_repeat:
        lines.append(
            f"failed     {len(to_repeat)} trials; the same command tries them again, and then chooses the winner"
        )
    elif winner is None and winner_wanted:
        lines.append("winner     none: no setting finished with all its seeds")
    if winner is not None:
        lines += _winner_lines(winner)
    lines += [
        f"report     {page}",
        f"tracking   {_how_to_open(shown(plan.base)['tracking']['uri'])}",
        f"curves     tensorboard --logdir {folder.path / 'tune'} (pip install tensorboard)",
    ]
    return "\n".join(lines)


def _winner_lines(winner: WinnerRecord) -> list[str]:
    lines = [f"winner     {winner.label}, chosen by {winner.chosen_on} {winner.chosen_value:.1f}"]
    lines += [f"           seed {run.seed}: {run.run_dir}" for run in winner.runs]
    return lines + ([f"           in the registry as {winner.registered}"] if winner.registered else [])


def _how_to_open(tracking: str) -> str:
    return f"open {tracking}" if tracking.startswith("http") else f"mlflow ui --backend-store-uri {tracking}"


def registered_name(plan: SweepPlan, wanted: str | None) -> str | None:
    """Return the ``wanted`` name for the registry, else one of method, protocol and data; None for random weights."""
    if plan.base.backbone.pretrained is None:
        return None
    split = plan.first.split
    name = wanted or f"{plan.base.method}-{split.protocol}-{split.dataset}".replace("_", "-")
    return re.sub(r"[^\w.-]+", "-", name)
