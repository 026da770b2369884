"""The MLflow run of a sweep: found again after a kill, ended as the sweep did, parent of all that the sweep trains."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipelines.config.schema import TrackingConfig, TrainConfig
from pipelines.records.run_file import Facts
from pipelines.runs.tracking import PARENT, RUN, Tracker, connect
from pipelines.sweeps.records import SweepTracking
from pipelines.sweeps.tracking import KEY, SweepRun, end_unfinished, open_sweep_run
from tests.helpers.sweep_records import layers_trial
from vlmodels.errors import UserError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return TrackingConfig(uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


@pytest.fixture
def sweep(store, request):
    """A plan as far as MLflow gets it, the store's client, and ``sweep.json``'s tracking in the first session."""
    plan = SimpleNamespace(
        name=request.node.name, title="Layers", base=TrainConfig(tracking=store), count=2, space={}, ablation=None
    )
    return SimpleNamespace(plan=plan, client=connect(store.uri), tracking=SweepTracking(key=request.node.name))


def trials(*statuses):
    return [layers_trial("1-2", status=status) for status in statuses]


def status(sweep, run_id):
    return sweep.client.get_run(run_id).info.status


def runs_of(sweep, name):
    experiment = sweep.client.get_experiment_by_name("vidadapt").experiment_id
    return sweep.client.search_runs([experiment], f"tags.`{RUN}` = '{name}'")


def trained(sweep, name, *, parent=None, error=None):
    """Leave the finished, or failed, run of a training."""
    tracker = Tracker(sweep.plan.base.tracking, parent=parent)
    tracker.start(sweep.plan.base, name, Facts(trainable=0))
    if error:
        tracker.fail(str(error))
        raise error
    sweep.client.set_terminated(tracker.run_id, "FINISHED")
    return tracker.run_id


@pytest.mark.parametrize(
    ("statuses", "complete", "ends", "failed", "counts"),
    [
        (["finished", "pruned"], True, "FINISHED", "0", "1 finished, 1 pruned"),
        (["invalid", "failed", "finished"], True, "FINISHED", "2", "1 failed, 1 finished, 1 invalid"),
        (["finished", "failed"], False, "FAILED", "1", "1 failed, 1 finished"),
        (["failed", "diverged"], True, "FAILED", "2", "1 diverged, 1 failed"),
        ([], False, "FAILED", "0", "none"),
    ],
)
def test_it_ends_as_the_sweep_did_and_counts_what_failed(sweep, statuses, complete, ends, failed, counts):
    with open_sweep_run(sweep.plan, sweep.tracking) as sweep_run:
        assert sweep_run.record_trials(trials(*statuses), complete=complete) == (ends == "FINISHED")
        assert status(sweep, sweep_run.run_id) == "RUNNING"
    run = sweep.client.get_run(sweep_run.run_id)
    assert (run.info.status, run.data.tags["failed_trials"], run.data.tags["trials"]) == (ends, failed, counts)


@pytest.mark.parametrize(("error", "ends"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_what_breaks_off_after_the_trials_is_recorded_too(sweep, error, ends):
    def broken_off():
        with open_sweep_run(sweep.plan, sweep.tracking) as sweep_run:
            sweep_run.record_trials(trials("finished"), complete=True)
            raise error

    with pytest.raises(error):
        broken_off()
    (run,) = runs_of(sweep, sweep.plan.name)
    assert (run.info.status, run.data.tags["failed_trials"]) == (ends, "0")


def test_without_a_store_the_sweeps_outcome_is_known_all_the_same():
    plan = SimpleNamespace(base=TrainConfig())
    with open_sweep_run(plan, SweepTracking()) as sweep_run, sweep_run.child("run"):
        assert sweep_run.record_trials(trials("finished"), complete=True)
        assert not sweep_run.record_trials([], complete=True)
    end_unfinished(plan, SweepTracking())


@pytest.mark.parametrize("noted", [True, False])
def test_a_killed_sessions_run_is_continued(sweep, noted):
    killed = open_sweep_run(sweep.plan, sweep.tracking)
    run_id = killed.__enter__().run_id
    assert status(sweep, run_id) == "RUNNING"
    again = replace(sweep.tracking, run_id=run_id if noted else None)
    with open_sweep_run(sweep.plan, again) as sweep_run:
        assert sweep_run.run_id == run_id
        sweep_run.record_trials(trials("finished"), complete=True)
    assert [run.info.status for run in runs_of(sweep, sweep.plan.name)] == ["FINISHED"]


def test_a_run_that_was_killed_before_its_parameters_were_logged_gets_them(sweep, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.log_batch", lambda *_, **__: 1 / 0)
        with pytest.raises(UserError, match=r"MLflow at sqlite.*cannot be used"):
            open_sweep_run(sweep.plan, sweep.tracking).__enter__()
    with open_sweep_run(sweep.plan, sweep.tracking) as sweep_run:
        pass
    (run,) = runs_of(sweep, sweep.plan.name)
    assert run.info.run_id == sweep_run.run_id
    assert run.data.params["config.method"] == sweep.plan.base.method


def test_the_same_sweep_of_another_folder_or_of_another_store_has_its_own_run(sweep):
    with open_sweep_run(sweep.plan, sweep.tracking) as mine:
        with open_sweep_run(sweep.plan, SweepTracking(key="another folder")) as theirs:
            assert theirs.run_id != mine.run_id
        with open_sweep_run(sweep.plan, SweepTracking("0123456789abcdef", "another store")) as new:
            assert new.run_id not in (mine.run_id, theirs.run_id)
        assert status(sweep, mine.run_id) == "RUNNING"


def test_what_was_deleted_in_mlflow_stays_so(sweep):
    with open_sweep_run(sweep.plan, sweep.tracking) as first:
        pass
    sweep.client.delete_run(first.run_id)
    with open_sweep_run(sweep.plan, replace(sweep.tracking, run_id=first.run_id)) as second:
        assert second.run_id != first.run_id


@pytest.mark.parametrize("noted", [True, False])
def test_a_sweep_begun_anew_ends_what_a_kill_left_open(sweep, noted):
    killed = open_sweep_run(sweep.plan, sweep.tracking)
    sweep_run = killed.__enter__()
    tracker = Tracker(sweep.plan.base.tracking, parent=sweep_run.run_id)
    tracker.start(sweep.plan.base, f"{sweep.plan.name}-trial", Facts(trainable=0))
    end_unfinished(sweep.plan, replace(sweep.tracking, run_id=sweep_run.run_id if noted else None))
    assert (status(sweep, sweep_run.run_id), status(sweep, tracker.run_id)) == ("KILLED", "KILLED")


def test_a_sweep_begun_anew_leaves_what_ended_as_it_was(sweep):
    end_unfinished(sweep.plan, None)
    end_unfinished(sweep.plan, sweep.tracking)  # killed before there was a run
    with open_sweep_run(sweep.plan, sweep.tracking) as sweep_run:
        pass
    end_unfinished(sweep.plan, replace(sweep.tracking, run_id=sweep_run.run_id))
    (run,) = runs_of(sweep, sweep.plan.name)
    assert (run.info.status, run.data.tags[KEY]) == ("FINISHED", sweep.tracking.key)


def test_the_winners_runs_are_children_however_they_end(sweep):
    good, bad, other = (f"{sweep.plan.name}-{name}" for name in ("good", "bad", "other"))
    foreign = trained(sweep, other, parent="another sweep")
    with open_sweep_run(sweep.plan, sweep.tracking) as sweep_run:
        with sweep_run.child(good):
            run_id = trained(sweep, good)
        with pytest.raises(RuntimeError, match="workers"), sweep_run.child(bad):
            trained(sweep, bad, error=RuntimeError("the workers failed"))
        with sweep_run.child(other):  # finished before, and reused
            pass
    assert sweep.client.get_run(run_id).data.tags[PARENT] == sweep_run.run_id
    assert runs_of(sweep, bad)[0].data.tags[PARENT] == sweep_run.run_id
    assert sweep.client.get_run(foreign).data.tags[PARENT] == "another sweep"


def test_the_first_error_is_the_one_to_show(sweep):
    sweep_run = SweepRun(client=SimpleNamespace(search_runs=lambda *_: 1 / 0))
    with pytest.raises(UserError, match="mine"), sweep_run.child("run"):
        raise UserError("mine")
