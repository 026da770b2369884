"""Which setting wins, how it is trained again, and which of its seeds the registry gets."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipelines.config.resolve import resolve
from pipelines.config.schema import ProtocolConfig, TrainConfig
from pipelines.runs.record import RunResult
from pipelines.sweeps.candidates import Candidate
from pipelines.sweeps.folder import SweepFolder
from pipelines.sweeps.records import TrialRecord
from pipelines.sweeps.tracking import SweepRun
from pipelines.sweeps.winner import choose_winner, train_winner
from pipelines.training.errors import DivergedError
from tests.helpers.fakes import record_of
from tune_spaces.search import Objective
from vlmodels.errors import UserError


def trial(setting, score, *, seed=1, trainable=1000, status="finished", metric="top1"):
    if isinstance(setting, str):
        setting = {"method.layers": setting}
    metrics = {} if score is None else {"select": {metric: score}}
    blank = TrialRecord.of(Candidate(setting, seed))
    return replace(blank, status=status, metrics=metrics, cost={"trainable": trainable})


def plan_of(*, seeds=(1,), objectives=("select.top1",), **config):
    base = TrainConfig(out="runs", protocol=ProtocolConfig(holdout=0.2), **config)
    base = resolve(method="msta", preset="b2n", base=base)
    return SimpleNamespace(
        base=base, seeds=seeds, search=SimpleNamespace(objectives=tuple(map(Objective.parse, objectives)))
    )


def chosen(records, **plan):
    winner = choose_winner(plan_of(**plan), records)
    return winner and (winner.setting["method.layers"], winner.value)


def test_the_best_mean_over_seeds_wins():
    records = [
        *(trial("1-2", 90.0, seed=1), trial("1-2", 10.0, seed=2)),
        *(trial("3-4", 60.0, seed=1), trial("3-4", 50.0, seed=2)),
    ]
    assert chosen(records, seeds=(1, 2)) == ("3-4", 55.0)
    winner = choose_winner(plan_of(seeds=(1, 2)), records)
    assert winner.trials == (records[2].id, records[3].id)
    assert (winner.label, winner.objective) == ("layers=3-4", "select.top1")


def test_of_equals_the_smaller_wins_whichever_ended_first():
    records = [trial("1-4", 50.0, trainable=200), trial("3-4", 50.0, trainable=100), trial("1-2", 50.0, trainable=150)]
    assert chosen(records) == chosen(records[::-1]) == ("3-4", 50.0)


def test_less_is_better_where_the_objective_says_so():
    records = [trial("1-4", 50.0, trainable=200), trial("3-4", 40.0, trainable=100)]
    assert chosen(records, objectives=("cost.trainable",)) == ("3-4", 100.0)
    assert chosen(records, objectives=("cost.trainable:max",)) == ("1-4", 200.0)
    assert chosen(records, objectives=("select.top1", "cost.trainable")) == ("1-4", 50.0)  # the first decides


@pytest.mark.parametrize("status", ["pruned", "failed", "diverged", "invalid", "started"])
def test_a_setting_of_which_a_seed_did_not_finish_is_left_out(status):
    records = [
        *(trial("1-2", 90.0, seed=1), trial("1-2", 90.0, seed=2, status=status)),
        *(trial("3-4", 50.0, seed=1), trial("3-4", 50.0, seed=2)),
        trial("4-4", 95.0, seed=1),  # of which seed 2 has no record yet
    ]
    assert chosen(records, seeds=(1, 2)) == ("3-4", 50.0)


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
@pytest.mark.parametrize("first", [True, False])
def test_a_trial_without_a_finite_score_never_wins(score, first):
    records = [trial("1-2", score), trial("3-4", 5.0)]
    assert chosen(records if first else records[::-1]) == ("3-4", 5.0)
    assert chosen([trial("1-2", score)]) is None


def test_settings_with_the_same_label_are_not_mixed():
    records = [trial({"method.scale": "1"}, 50.0), trial({"optim.scale": "1"}, 70.0)]
    winner = choose_winner(plan_of(), records)
    assert (winner.setting, winner.value) == ({"optim.scale": "1"}, 70.0)


def test_nothing_finished_is_no_winner():
    assert choose_winner(plan_of(), []) is None
    assert choose_winner(plan_of(), [trial("1-2", 50.0, status="pruned")]) is None


# ----------------------------------------------------------------------------------------------------- the last runs


class FakeTraining:
    """Notes what is to be trained and registered, and makes up results; nothing is trained."""

    def __init__(self):
        self.trained, self.registered = [], []
        self.select = {}  # top-1 on held-out clips by seed
        self.diverging = ()  # seeds
        self.registry_error = None

    def plan(self, config):
        return SimpleNamespace(config=config, name=f"run-{config.seed}")

    def train(self, plans, *, fresh, say):
        return [self.train_one(plan.config, fresh) for plan in plans]

    def train_one(self, config, fresh):
        self.trained.append(config)
        assert not fresh
        if config.seed in self.diverging:
            return DivergedError("the loss is nan")
        held_out = {"metrics.select": {"top1": self.select[config.seed]}} if config.seed in self.select else {}
        record = record_of(seed=config.seed, scores=50.0 + config.seed, changes=held_out)
        return RunResult(f"runs/{record.name}", record, reused=False)

    def register(self, result, config, *, say):
        if self.registry_error:
            raise self.registry_error
        self.registered.append((result.record.seed, config.tracking.register, config.tracking.alias))
        return f"models:/{config.tracking.register}@champion"


@pytest.fixture
def training():
    return FakeTraining()


def trained_winner(training, path, *, register="mine", say=lambda _: None, **plan):
    """Train the winner of a sweep of one trial; its record is on disk too."""
    plan, folder = plan_of(**plan), SweepFolder(path)
    winner = choose_winner(plan, [trial("3-4", 61.0)])
    record = train_winner(
        plan,
        winner,
        folder,
        seeds=(1, 2, 3),
        register=register,
        sweep_run=SweepRun(),
        say=say,
        plan_one=training.plan,
        train=training.train,
        register_one=training.register,
    )
    assert folder.winner() == record
    return record


def test_each_seed_is_trained_and_recorded(training, tmp_path):
    record = trained_winner(training, tmp_path)
    assert [config.seed for config in training.trained] == [1, 2, 3]
    assert {config.method_config["layers"] for config in training.trained} == {"3-4"}
    assert all(config.test and not config.protocol.holdout for config in training.trained)
    assert (record.label, record.chosen_on, record.chosen_value) == ("layers=3-4", "select.top1", 61.0)
    assert [(run.seed, run.metrics["novel"]["top1"]) for run in record.runs] == [(1, 51), (2, 52), (3, 53)]
    assert record.runs[0].run_dir == f"runs/{record.runs[0].name}"


def test_the_first_seed_is_registered_though_another_is_better_on_test(training, tmp_path):
    assert trained_winner(training, tmp_path).registered == "models:/mine@champion"
    assert training.registered == [(1, "mine", "champion")]


def test_with_held_out_clips_the_best_on_them_is_registered(training, tmp_path):
    training.select = {1: 40.0, 2: 60.0, 3: 50.0}
    trained_winner(training, tmp_path, selection="select")
    assert training.registered == [(2, "mine", "champion")]


def test_without_a_name_or_a_registry_there_is_a_winner_all_the_same(training, tmp_path):
    assert trained_winner(training, tmp_path, register=None).registered is None
    assert training.registered == []
    lines = []
    training.registry_error = UserError("registering needs a run that MLflow tracks")
    assert trained_winner(training, tmp_path, say=lines.append).registered is None
    assert lines == ["the winner is not in the registry: registering needs a run that MLflow tracks"]


def test_a_seed_that_diverges_is_reported_and_left_out(training, tmp_path):
    training.diverging, lines = (2,), []
    assert [run.seed for run in trained_winner(training, tmp_path, say=lines.append).runs] == [1, 3]
    assert lines == ["the winner diverged with seed 2 and is left out of its scores: the loss is nan"]


def test_where_all_seeds_diverge_there_is_no_winner(training, tmp_path):
    training.diverging = (1, 2, 3)
    assert trained_winner(training, tmp_path) is None


def test_a_winner_is_registered_once(training, tmp_path):
    """The alias may point to another sweep's winner by the time the command is repeated."""
    first = trained_winner(training, tmp_path)
    assert trained_winner(training, tmp_path) == first
    assert len(training.registered) == 1
    trained_winner(training, tmp_path, register="other")
    assert [name for _, name, _ in training.registered] == ["mine", "other"]
