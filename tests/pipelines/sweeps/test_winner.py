"""Which setting wins, how it is trained again, and which of its seeds the registry gets."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from pipelines.config.resolve import resolve
from pipelines.config.schema import ProtocolConfig, TrainConfig
from pipelines.runs.record import RunResult
from pipelines.sweeps.candidates import Candidate, final
from pipelines.sweeps.folder import SweepFolder
from pipelines.sweeps.records import blank
from pipelines.sweeps.tracking import Parent
from pipelines.sweeps.winner import choose, crown
from pipelines.training.errors import DivergedError
from tests.helpers.fakes import record_of
from tune_spaces.search import Objective
from vlmodels.errors import UserError


def trial(setting, score, *, seed=1, trainable=1000, status="finished", metric="top1"):
    if isinstance(setting, str):
        setting = {"method.layers": setting}
    record = blank(Candidate(setting, seed))
    metrics = {} if score is None else {"select": {metric: score}}
    return record | {"status": status, "metrics": metrics, "cost": {"trainable": trainable}}


def plan_of(*, seeds=(1,), objectives=("select.top1",), **config):
    base = TrainConfig(out="runs", protocol=ProtocolConfig(holdout=0.2), **config)
    base = resolve(method="msta", preset="b2n", base=base)
    return SimpleNamespace(
        base=base, seeds=seeds, search=SimpleNamespace(objectives=tuple(map(Objective.parse, objectives)))
    )


def chosen(records, **plan):
    winner = choose(plan_of(**plan), records)
    return winner and (winner.setting["method.layers"], winner.value)


def test_the_best_mean_over_seeds_wins():
    records = [
        *(trial("1-2", 90.0, seed=1), trial("1-2", 10.0, seed=2)),
        *(trial("3-4", 60.0, seed=1), trial("3-4", 50.0, seed=2)),
    ]
    assert chosen(records, seeds=(1, 2)) == ("3-4", 55.0)
    winner = choose(plan_of(seeds=(1, 2)), records)
    assert winner.trials == (records[2]["id"], records[3]["id"])
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
def test_what_has_no_number_as_score_never_wins(score, first):
    records = [trial("1-2", score), trial("3-4", 5.0)]
    assert chosen(records if first else records[::-1]) == ("3-4", 5.0)
    assert chosen([trial("1-2", score)]) is None


def test_settings_with_the_same_label_are_not_mixed():
    records = [trial({"method.scale": "1"}, 50.0), trial({"optim.scale": "1"}, 70.0)]
    winner = choose(plan_of(), records)
    assert (winner.setting, winner.value) == ({"optim.scale": "1"}, 70.0)


def test_nothing_finished_is_no_winner():
    assert choose(plan_of(), []) is None
    assert choose(plan_of(), [trial("1-2", 50.0, status="pruned")]) is None


# ----------------------------------------------------------------------------------------------------- the last runs


def test_the_winner_trains_on_all_clips_and_classes_and_is_tested():
    base = TrainConfig(protocol=ProtocolConfig(holdout=0.2, holdout_classes=0.25), test=False)
    config = final(base, 3)
    assert (config.protocol.holdout, config.protocol.holdout_classes) == (0.0, 0.0)
    assert (config.test, config.seed) == (True, 3)


def test_clips_that_choose_the_epoch_stay_held_out():
    base = TrainConfig(protocol=ProtocolConfig(holdout=0.2, holdout_classes=0.25), selection="select", test=False)
    config = final(base, 1)
    assert (config.protocol.holdout, config.protocol.holdout_classes) == (0.2, 0.0)


@pytest.fixture
def runs(monkeypatch):
    """What was trained and registered; nothing is."""
    done = SimpleNamespace(trained=[], registered=[], select={}, error=None, diverging=())

    def run_training(plan, *, fresh, say):
        config = plan.config
        done.trained.append(config)
        assert not fresh
        if config.seed in done.diverging:
            raise DivergedError("the loss is nan")
        held_out = {"metrics.select": {"top1": done.select[config.seed]}} if config.seed in done.select else {}
        record = record_of(seed=config.seed, scores=50.0 + config.seed, changes=held_out)
        return RunResult(f"runs/{record.name}", record, reused=False)

    def register_run(result, config, *, say):
        if done.error:
            raise done.error
        done.registered.append((result.record.seed, config.tracking.register, config.tracking.alias))
        return f"models:/{config.tracking.register}@champion"

    monkeypatch.setattr(
        "pipelines.planning.plan.plan_run", lambda config: SimpleNamespace(config=config, name=f"run-{config.seed}")
    )
    monkeypatch.setattr("pipelines.runs.run.run_training", run_training)
    monkeypatch.setattr("pipelines.runs.registry.register_run", register_run)
    return done


def crowned(tmp_path, *, seeds=(1, 2, 3), register="mine", said=lambda _: None, **plan):
    plan, folder = plan_of(**plan), SweepFolder(tmp_path)
    winner = choose(plan, [trial("3-4", 61.0)])
    record = crown(plan, winner, folder, seeds=seeds, register=register, parent=Parent(), say=said)
    assert folder.winner() == {"schema": 1, **record}
    return record


def test_each_seed_is_trained_and_told(runs, tmp_path):
    record = crowned(tmp_path)
    assert [config.seed for config in runs.trained] == [1, 2, 3]
    assert {config.method_config["layers"] for config in runs.trained} == {"3-4"}
    assert all(config.test and not config.protocol.holdout for config in runs.trained)
    assert (record["label"], record["chosen_on"], record["chosen_value"]) == ("layers=3-4", "select.top1", 61.0)
    assert [(run["seed"], run["metrics"]["novel"]["top1"]) for run in record["runs"]] == [(1, 51), (2, 52), (3, 53)]
    assert record["runs"][0]["run_dir"] == f"runs/{record['runs'][0]['name']}"


def test_the_first_seed_is_registered_though_another_is_better_on_test(runs, tmp_path):
    assert crowned(tmp_path)["registered"] == "models:/mine@champion"
    assert runs.registered == [(1, "mine", "champion")]


def test_with_held_out_clips_the_best_on_them_is_registered(runs, tmp_path):
    runs.select = {1: 40.0, 2: 60.0, 3: 50.0}
    crowned(tmp_path, selection="select")
    assert runs.registered == [(2, "mine", "champion")]


def test_without_a_name_or_a_registry_there_is_a_winner_all_the_same(runs, tmp_path):
    assert crowned(tmp_path, register=None)["registered"] is None
    assert runs.registered == []
    said = []
    runs.error = UserError("registering needs a run that MLflow tracks")
    assert crowned(tmp_path, said=said.append)["registered"] is None
    assert said == ["the winner is not in the registry: registering needs a run that MLflow tracks"]


def test_a_seed_that_diverges_is_told_and_left_out(runs, tmp_path):
    runs.diverging, said = (2,), []
    assert [run["seed"] for run in crowned(tmp_path, said=said.append)["runs"]] == [1, 3]
    assert said == ["the winner diverged with seed 2 and is left out of its scores: the loss is nan"]
    runs.diverging = (1, 2, 3)
    plan, winner = plan_of(), choose(plan_of(), [trial("3-4", 61.0)])
    folder = SweepFolder(tmp_path / "another")
    assert crown(plan, winner, folder, seeds=(1, 2, 3), register="mine", parent=Parent(), say=said.append) is None
    assert folder.winner() is None


def test_a_winner_is_registered_once(runs, tmp_path):
    """The alias may have moved on to another sweep's winner by the time the command is repeated."""
    first = crowned(tmp_path)
    assert crowned(tmp_path) == first
    assert len(runs.registered) == 1
    crowned(tmp_path, register="other")
    assert [name for _, name, _ in runs.registered] == ["mine", "other"]


def test_a_sweep_has_one_process_at_a_time(tmp_path):
    folder = SweepFolder(tmp_path / "sweep-a")
    with folder.locked():
        with SweepFolder(tmp_path / "sweep-b").locked():
            pass
        with pytest.raises(UserError, match="sweep-a is running already"), folder.locked():
            pass
    with folder.locked():
        pass


def test_what_fails_in_two_sessions_is_not_waited_for(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    once, twice = (trial(layers, None, status="failed") | {"failures": n} for layers, n in (("1-1", 1), ("2-2", 2)))
    folder.write_trial(once)
    folder.write_trial(twice)
    assert [record["id"] for record in folder.unfinished()] == [once["id"]]
    assert [record["id"] for record in folder.ended()] == [twice["id"]]
