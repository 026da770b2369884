"""Made-up records of sweeps and trials."""

from __future__ import annotations

from dataclasses import replace

from pipelines.sweeps.candidates import label_of
from pipelines.sweeps.folder import SweepFolder
from pipelines.sweeps.records import (
    AblationRecord,
    AblationRowRecord,
    ObjectiveRecord,
    SweepRecord,
    SweepTracking,
    TrialRecord,
    TrialTracking,
)
from tests.helpers.fakes import record_json

PRINTED = (
    ("1→6", "1-2", (67.4, 52.9, 59.3)),
    ("7→12", "3-4", (68.0, 53.1, 59.6)),
    ("8→12", "3-4", (68.6, 53.5, 60.1)),
    ("10→12", "4-4", ()),
)
ABLATION = AblationRecord(
    method="msta",
    name="insertion",
    title="Layers with adapters",
    source="MSTA table 6f",
    protocol="b2n",
    preset="b2n",
    data="four data sets",
    columns=("Base", "Novel", "HM"),
    rows=tuple(AblationRowRecord(label, {"method.layers": layers}, printed) for label, layers, printed in PRINTED),
    baseline=AblationRowRecord("CLIP", {}, (60.0, 50.0, 54.5)),
)


def objectives(**modes):
    """Objectives from ``select__top1="max"``."""
    return tuple(ObjectiveRecord(name.replace("__", "."), mode) for name, mode in modes.items())


def sweep_of(protocol="b2n", **fields):
    """The record of a search of layers; ``fields`` replace its own."""
    record = SweepRecord(
        name="sweep-msta-layers-1a2b",
        method="msta",
        protocol=protocol,
        dataset="toy-ucf",
        preset="b2n",
        backbone="toy",
        depths={"video": 4, "text": 4},
        title="Where it is inserted",
        ablation=None,
        space={"method.layers": "any range within 1-4"},
        search="grid",
        scheduler="none",
        samples=10,
        seeds=(1,),
        search_seed=1,
        objectives=objectives(select__top1="max"),
        scored_on_test=True,
        config=record_json(protocol)["config"],
        notes=("a note",),
        tracking=SweepTracking("parent", "key", "sqlite:///m.db"),
        started="2026-01-01T00:00:00Z",
    )
    return replace(record, **fields)


def trial_of(setting, top1=60.0, *, seed=1, status="finished", protocol="b2n", scores=None, **fields):
    """A trial; ``scores``: top-1 of its test sets, none where it is None."""
    sets = {} if scores is None else record_json(protocol, scores=scores)["metrics"]
    started, finished = status not in ("invalid", "failed"), status == "finished"
    epochs = (3 if finished else 1) * started
    record = TrialRecord(
        id=f"{'-'.join(setting.values())}-{seed}",
        label=label_of(setting),
        setting=setting,
        seed=seed,
        status=status,
        run="b2n-msta-1" if started else "",
        epochs=epochs,
        seconds=12.0,
        history=tuple({"epoch": n + 1.0, "loss": 1.0, "select_top1": top1 - 2 + n} for n in range(epochs)),
        metrics={"select": {"top1": top1, "top5": 90.0}, **sets} if started else {},
        cost={"trainable": 4352, **({"step_seconds": 0.25} if finished else {})} if started else {},
        tracking=TrialTracking("child" if started else None),
    )
    return replace(record, **fields)


def layers_trial(text, *args, **kwargs):
    """A trial of a range of layers."""
    return trial_of({"method.layers": text}, *args, **kwargs)


def leave_sweep(path, sweep, trials, winner=None):
    """Write the records as a sweep does; return the folder."""
    folder = SweepFolder(path)
    folder.write_sweep(sweep)
    for trial in trials:
        folder.write_trial(trial)
    if winner is not None:
        folder.write_winner(winner)
    return folder
