"""Runs in this process, as sweeps need them: equal to Ray's, stopped and continued, without the test sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.planning.plan import plan_run
from pipelines.records.home import Home
from pipelines.runs.run import Watch, run_training
from pipelines.runs.tracking import connect
from pipelines.training.errors import DivergedError
from tests.helpers import small_runs
from tests.helpers.small_runs import losses
from vlmodels.errors import UserError


def config_of(data, out, *overrides):
    return small_runs.config_of(data, out, "optim.epochs=6", "protocol.holdout=0.25", *overrides, workers=1)


def quietly(config, on_epoch=lambda _: None, **more):
    return run_training(plan_run(config), say=lambda _: None, watch=Watch("a trial", on_epoch), **more)


@pytest.fixture(scope="module")
def undisturbed(small_data, tmp_path_factory):
    return quietly(config_of(small_data, tmp_path_factory.mktemp("undisturbed")))


def test_a_watched_run_has_held_out_accuracy_after_every_epoch(small_data, tmp_path):
    epochs = []
    result = quietly(config_of(small_data, tmp_path, "optim.epochs=2"), epochs.append)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert all(0 <= epoch["select_top1"] <= 100 for epoch in epochs)
    assert epochs[-1]["select_top1"] == result.metrics.select.top1
    assert result.record.epoch_kept == 2  # watching does not choose


def test_in_process_equals_ray_train(undisturbed, small_data, ray_session, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # a named cluster trains one worker too
    ray = run_training(plan_run(config_of(small_data, tmp_path)), say=lambda _: None)
    assert list(ray.record.workers.values()) != list(undisturbed.record.workers.values()), "an address, not a name"
    assert losses(ray) == losses(undisturbed)
    assert ray.metrics == undisturbed.metrics
    assert ray.record.name == undisturbed.record.name


def tracked(config):
    """Status and outcome of the only run that MLflow has."""
    client = connect(config.tracking.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("vidadapt").experiment_id])
    assert run.info.run_name == "a trial"
    return run.info.status, run.data.tags["outcome"]


def test_a_run_that_was_cut_off_continues_where_it_stopped(undisturbed, small_data, tmp_path):
    trained = []

    def lose_power(epoch):
        trained.append(int(epoch["epoch"]))
        if epoch["epoch"] == 3:
            raise KeyboardInterrupt

    config = config_of(small_data, tmp_path, f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(KeyboardInterrupt):
        quietly(config, lose_power)
    assert tracked(config) == ("KILLED", "stopped by the user")
    trained.clear()
    result = quietly(config, lambda epoch: trained.append(int(epoch["epoch"])))
    assert trained == [4, 5, 6]
    assert losses(result) == losses(undisturbed)
    assert result.metrics == undisturbed.metrics


def test_a_run_that_its_sweep_stops_is_forgotten(small_data, tmp_path):
    def stop(epoch):
        if epoch["epoch"] == 2:
            raise SystemExit

    config = config_of(small_data, tmp_path, f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(SystemExit):
        quietly(config, stop)
    assert not Home.at(str(tmp_path)).unfinished(plan_run(config).name)
    assert tracked(config) == ("KILLED", "stopped by the sweep")


def test_a_loss_that_is_not_finite_ends_the_run(small_data, tmp_path):
    with pytest.raises(DivergedError, match=r"lower optim\.lr"):
        quietly(config_of(small_data, tmp_path, "optim.lr=1e30", "method.scale=100"))


def test_without_test_no_test_set_is_scored(small_data, tmp_path):
    result = quietly(config_of(small_data, tmp_path, "test=false", "optim.epochs=2"))
    assert set(result.metrics.to_json()) == {"select"}
    folder = Path(result.run_dir)
    assert json.loads((folder / "classes.json").read_text()) == {}
    assert not (folder / "report").exists()


def test_held_out_classes_select_for_unseen_classes(small_data, tmp_path):
    config = config_of(
        small_data, tmp_path, "test=false", "optim.epochs=2", "protocol.name=supervised", "protocol.holdout_classes=0.5"
    )
    split = plan_run(config).split
    assert split.select_novel is not None
    assert len(split.train_classes) == len(split.select_novel.classes) == 2
    assert not set(split.train_classes) & set(split.select_novel.classes)
    assert {e.clip_id for e in split.select_novel.examples}.isdisjoint(e.clip_id for e in (*split.train, *split.select))
    select = quietly(config).metrics.select.to_json()
    both = 2 * select["top1"] * select["novel"]
    assert select["hm"] == pytest.approx(both / (select["top1"] + select["novel"]) if both else 0.0)


def test_a_run_that_holds_out_decides_what_is_none_of_these(undisturbed, small_data, tmp_path):
    """Novel test videos are of no trained class; scores are those of a run that does not look at them."""
    assert set(undisturbed.record.decision.sets) == {"select", "base", "novel"}
    config = config_of(
        small_data, tmp_path, "protocol.name=supervised", "protocol.holdout_classes=0.5", "optim.epochs=2"
    )
    split, decision = plan_run(config).split, quietly(config).record.decision
    assert set(decision.sets) == {"select", "test"}
    assert (decision.threshold, decision.temperature) == (None, 1)  # too few clips
    assert any("it takes 20" in note for note in decision.notes)
    test, select = decision.sets["test"], decision.sets["select"]
    assert (test.known, test.unknown) == (len(split.tests[0].examples), len(split.unseen[0].examples))
    assert (select.known, select.unknown) == (len(split.select), len(split.select_novel.examples))
    assert sum(each.clips for each in test.bins) == test.known
    assert set(split.unseen[0].classes) == set(split.select_novel.classes)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["protocol.holdout_classes=0.5", "protocol.holdout=0"], "set protocol.holdout too"),
        (["test=false", "protocol.holdout=0"], "leaves nothing to score"),
        (["test=false", "selection=test-best"], "does not go with test=false"),
        (["test=false", "protocol.holdout_classes=0.5"], "fewer than 2"),  # b2n trains 2 of the 4 classes
        (["scale.workers=2", "scale.gpus_per_worker=0.5"], "1 with several workers"),
    ],
)
def test_what_cannot_be_selected_on_is_refused(small_data, tmp_path, overrides, words):
    with pytest.raises(UserError, match=words):
        plan_run(config_of(small_data, tmp_path, *overrides))
