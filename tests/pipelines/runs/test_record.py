"""The record of a run is made of its plan and of what its workers leave."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from pipelines.config.schema import DataConfig, TrainConfig
from pipelines.planning.facts import PlanFacts
from pipelines.planning.plan import Plan
from pipelines.protocols.split import Scoring
from pipelines.records import run_file
from pipelines.runs.checkpoint import Outcome
from pipelines.runs.progress import Progress
from pipelines.runs.record import facts_of, record_of
from tests.helpers.fakes import FakeStore, split_of
from vlmodels.errors import UserError

SCORES = {"top1": 60.0, "top5": 80.0, "n_listed": 24, "n_scored": 24, "n_quarantined": 0}
EPOCH = {"epoch": 1.0, "loss": 0.5, "seconds": 2.0, "data_wait": 0.5, "network_wait": 0.0}
KEYS = (
    "schema name group protocol dataset method preset seed scoring lists start config metrics cost history selection "
    "epoch_kept facts classes unscored seconds restarts workers finished tracking"
)


@pytest.fixture
def plan():
    counts = dict.fromkeys(("total", "frames", "train_clips", "select_clips", "steps", "adapter_bytes"), 4)
    facts = PlanFacts(
        **counts,
        trainable=3,
        test_clips={"base": 24},
        classes={"train": 4},
        weights_digest="toy",
        view_notes=("one",),
        shard_notes=(),
        start_notes=(),
        gmacs_video=1.5,
    )
    scoring = Scoring(frames=4, clips=1, crops=1, sampling="segments", stride=0, short_side=56, average="softmax")
    split = replace(split_of(FakeStore()), scoring=scoring)
    return Plan(TrainConfig(data=DataConfig(dir="data")), split, None, "d1", facts)


def made(plan, metrics):
    outcome = Outcome(metrics=metrics, history=(EPOCH,), epoch_kept=1, cost={"step_seconds": 0.1})
    progress = Progress(plan.name, 1, print)
    return record_of(plan, outcome, facts_of(plan), run_id=None, seconds=3.0, progress=progress)


def test_a_record_is_read_as_it_was_made(plan, tmp_path):
    record = made(plan, {"base": SCORES, "novel": SCORES})
    run_file.write(tmp_path, record)
    values = json.loads((tmp_path / "run.json").read_text())
    assert list(values) == KEYS.split()
    assert run_file.read(tmp_path / "run.json").to_json() == values
    assert values["metrics"]["hm"] == pytest.approx(60.0)
    assert values["seconds"] == {"total": 5.0, "train": 2.0, "data_wait": 0.5, "network_wait": 0.0}
    assert values["cost"] == {"step_seconds": 0.1, "trainable": 3, "gmacs_video": 1.5}
    facts = values["facts"]
    assert (facts["trainable"], facts["view_notes"], facts["data_digest"], facts["steps"]) == (3, ["one"], "d1", 4)


def test_what_makes_no_record_names_the_run_and_what_is_kept(plan):
    problem = re.escape("no record can be made of it (metrics.novel is missing); its checkpoint is kept")
    with pytest.raises(UserError, match=f"^{plan.name}: {problem}$"):
        made(plan, {"base": SCORES, "select": {"top1": 1.0}})
