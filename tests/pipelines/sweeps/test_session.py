"""Sessions of sweeps on Ray Tune: what becomes of each trial, what is never done twice, what survives."""

from __future__ import annotations

import functools
import json
import signal
import time
from pathlib import Path

import pytest

from pipelines import sweep
from pipelines.runs.tracking import PARENT, RUN, connect
from pipelines.sweeps.flags import parse, request_from
from pipelines.sweeps.folder import SweepFolder
from pipelines.sweeps.plan import plan_sweep
from pipelines.sweeps.runner import run_trials
from pipelines.sweeps.session import run_sweep
from pipelines.sweeps.trial import trainable

SETTINGS = (
    *("method.dims=8", "optim.batch_size=4", "optim.epochs=2", "optim.warmup_epochs=1", "optim.label_smoothing=0"),
    *("augment.mixup=0", "augment.cutmix=0", "protocol.holdout=0.25"),
)


@pytest.fixture(scope="module")
def arguments(small_data, ray_session):
    """What all sweeps here share."""
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    common = ["--data", str(small_data), "--method", "adaptformer", "--protocol", "supervised", "--dashboard", "none"]
    return [*common, *sets, "--concurrent", "1"]


class Sweep:
    """A sweep's command line, and what it leaves."""

    def __init__(self, out, *arguments):
        self.out, self.arguments = out, [*arguments, "--out", str(out), "--mlflow", f"sqlite:///{out}/mlflow.db"]

    def run(self, *more):
        """Run the script."""
        return sweep.main([*self.arguments, *more])

    def run_with(self, *more, folder=SweepFolder, **parts):
        """Run a session as the script does, with some parts replaced; return whether it succeeded."""
        request = request_from(*parse([*self.arguments, *more], ""))
        plan = plan_sweep(request)
        return run_sweep(plan, request, folder=folder.at(str(self.out), plan.name), **parts).succeeded

    @property
    def folder(self):
        (path,) = (self.out / "sweeps").iterdir()
        return SweepFolder(path)

    @property
    def trials(self):
        return {trial.label: trial for trial in self.folder.trials()}

    def statuses(self):
        return {label: trial.status for label, trial in self.trials.items()}

    def written(self):
        """When each trial's record, and its run's, was written."""
        found = [*self.folder.path.glob("trials/*.json"), *self.folder.path.glob("runs/*/run.json")]
        return {path.name if path.name != "run.json" else path.parent.name: path.stat().st_mtime_ns for path in found}

    def tracked(self):
        """MLflow's runs: the sweeps' own and all others, in the order in which they began."""
        client = connect(f"sqlite:///{self.out}/mlflow.db")
        experiment = client.get_experiment_by_name("vidadapt").experiment_id
        runs = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
        parents = [run for run in runs if run.data.tags[RUN] == self.folder.path.name]
        return parents, [run for run in runs if run not in parents]


def free_cpus(wanted=2, seconds=30):
    """CPUs that nothing holds, once they are ``wanted`` or time is up."""
    import ray

    ends = time.monotonic() + seconds
    while (free := ray.available_resources().get("CPU", 0)) != wanted and time.monotonic() < ends:
        time.sleep(0.2)
    return free


def disturbed(shared, change):
    """A trial in whose process ``change(setting, numbers)`` is called with all that it reports."""
    undisturbed = trainable(shared)

    def trial(config):
        from ray import tune

        report = tune.report

        def reporting(numbers):
            report(change(config["setting"], numbers))

        tune.report = reporting
        try:
            undisturbed(config)
        finally:
            tune.report = report

    return trial


@pytest.fixture(scope="module")
def mixed(arguments, tmp_path_factory):
    """A sweep with a setting that trains, one whose loss is not finite, and two that cannot be built."""
    mixed = Sweep(
        tmp_path_factory.mktemp("mixed"),
        *(*arguments, "--grid", "method.layers=3-4,3-9", "--grid", "optim.lr=3e-3,1e30"),
    )
    assert mixed.run("--winner-seeds", "0") == 0
    return mixed


def test_the_sweep_continues_however_a_trial_ends(mixed):
    assert mixed.statuses() == {
        "layers=3-4, lr=3e-3": "finished",
        "layers=3-4, lr=1e30": "diverged",
        "layers=3-9, lr=3e-3": "invalid",
        "layers=3-9, lr=1e30": "invalid",
    }
    good, diverged, invalid = (mixed.trials[f"layers={of}"] for of in ("3-4, lr=3e-3", "3-4, lr=1e30", "3-9, lr=3e-3"))
    assert set(good.metrics) == {"select"}  # this sweep scores no test list
    assert [epoch["epoch"] for epoch in good.history] == [1, 2]
    assert good.epochs == 2
    assert good.history[-1]["select_top1"] == good.metrics["select"]["top1"]
    assert {"trainable", "gmacs_video", "step_seconds"} <= set(good.cost)
    assert (mixed.folder.path / "runs" / good.run / "run.json").is_file()
    assert "lower optim.lr" in diverged.message
    assert diverged.cost == {"trainable": good.cost["trainable"]}
    assert "4 layers" in invalid.message
    assert (invalid.run, invalid.metrics, invalid.cost) == ("", {}, {})
    assert (mixed.folder.path / "report" / "report.html").is_file()


def test_trials_are_children_of_the_sweeps_run(mixed):
    (parent,), children = mixed.tracked()
    assert parent.info.status == "FINISHED"
    assert {run.data.tags[PARENT] for run in children} == {parent.info.run_id}
    assert parent.data.tags["trials"] == "1 diverged, 1 finished, 2 invalid"
    assert parent.data.tags["failed_trials"] == "3"
    assert {run.info.run_name: run.info.status for run in children} == {
        "layers=3-4, lr=3e-3, seed 1": "FINISHED",
        "layers=3-4, lr=1e30, seed 1": "FAILED",
    }
    (done,) = [run for run in children if run.info.status == "FINISHED"]
    assert done.info.run_id == mixed.trials["layers=3-4, lr=3e-3"].tracking.run_id
    assert mixed.folder.sweep().tracking.run_id == parent.info.run_id


def test_the_same_command_repeats_no_trial_and_only_what_is_missing_is_run(mixed, capsys):
    before, record = mixed.written(), mixed.folder.sweep()
    assert mixed.run("--winner-seeds", "0") == 0
    assert mixed.written() == before
    assert "4 of 4 trials ended in an earlier session" in capsys.readouterr().out
    lost = mixed.trials["layers=3-9, lr=3e-3"].id + ".json"
    (mixed.folder.path / "trials" / lost).unlink()

    def fail(setting, numbers):
        from vlmodels.errors import UserError

        raise UserError("MLflow cannot be used: it is away")

    failing = functools.partial(run_trials, trainable=lambda shared: disturbed(shared, fail), max_failures=0)
    assert not mixed.run_with("--winner-seeds", "1", run_trials=failing)
    (parent,), _ = mixed.tracked()
    assert (parent.info.status, parent.data.tags["failed_trials"]) == ("FAILED", "3")  # it could not end
    failed = mixed.trials["layers=3-9, lr=3e-3"]
    assert (failed.status, failed.message) == (
        "failed",
        "vlmodels.errors.UserError: MLflow cannot be used: it is away",
    )
    assert mixed.folder.winner() is None  # something is still to come
    assert mixed.run("--winner-seeds", "0") == 0
    assert mixed.trials["layers=3-9, lr=3e-3"].status == "invalid"
    after = mixed.written()
    assert {name for name in after if after[name] != before[name]} == {lost}
    assert mixed.folder.sweep() == record
    parents, children = mixed.tracked()
    assert (len(parents), len(children)) == (1, 2)


def test_the_winner_is_trained_on_all_clips_tested_and_registered(mixed, small_data, capsys):
    from vlmodels.predictor import load

    before = mixed.written()
    assert mixed.run("--winner-seeds", "1") == 0
    printed = capsys.readouterr().out
    winner, good = mixed.folder.winner(), mixed.trials["layers=3-4, lr=3e-3"]
    assert winner.setting == {"method.layers": "3-4", "optim.lr": "3e-3"}
    assert (winner.chosen_on, winner.trials) == ("select.top1", (good.id,))
    assert winner.chosen_value == good.metrics["select"]["top1"]
    (run,) = winner.runs
    record = json.loads((Path(run.run_dir) / "run.json").read_text())
    assert Path(run.run_dir).parent == mixed.out
    assert record["facts"]["train_clips"] == 16  # all: the trials had 12
    assert set(record["metrics"]) == {"test"}
    assert winner.registered == "models:/adaptformer-supervised-data@champion"
    client = connect(f"sqlite:///{mixed.out}/mlflow.db")
    version = client.get_model_version_by_alias("adaptformer-supervised-data", "champion")
    assert version.run_id == record["tracking"]["run_id"]
    assert "adaptformer" in version.description.lower()
    for words in ("best on held-out clips: layers=3-4, lr=3e-3", winner.registered, run.run_dir):
        assert words in printed
    (parent,), children = mixed.tracked()
    assert parent.data.tags["winner"] == "layers=3-4, lr=3e-3"
    (tracked,) = [run for run in children if run.info.run_id == record["tracking"]["run_id"]]
    assert (tracked.data.tags[PARENT], tracked.info.status) == (parent.info.run_id, "FINISHED")
    assert load(run.run_dir).classes
    assert mixed.run("--winner-seeds", "1") == 0  # and nothing of it twice
    assert mixed.written() == before
    assert json.loads((Path(run.run_dir) / "run.json").read_text()) == record
    assert client.get_model_version_by_alias("adaptformer-supervised-data", "champion").version == version.version


def test_the_run_that_a_killed_session_had_just_opened_is_continued_and_begun_anew_it_is_ended(
    arguments, tmp_path, monkeypatch
):
    from mlflow import MlflowClient

    killed = Sweep(tmp_path, *arguments, "--grid", "optim.lr=1e30,1e35", "--winner-seeds", "0")

    def run_killed(*more):
        class KilledFolder(SweepFolder):
            """Its session is killed before it can note the MLflow run that it opened."""

            def write_sweep(self, record):
                if record.tracking.run_id is not None:
                    patch.setattr(MlflowClient, "set_terminated", lambda *_: None)  # a killed process closes nothing
                    raise KeyboardInterrupt
                super().write_sweep(record)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            killed.run_with(*more, folder=KilledFolder)

    run_killed()
    assert [run.info.status for run in killed.tracked()[0]] == ["RUNNING"]
    run_killed("--fresh")
    assert [run.info.status for run in killed.tracked()[0]] == ["KILLED", "RUNNING"]
    assert killed.run() == 1  # all trials ended, none with a score
    _, parent = killed.tracked()[0]
    assert (parent.info.status, parent.data.tags["trials"]) == ("FAILED", "2 diverged")
    assert parent.info.run_id == killed.folder.sweep().tracking.run_id


def test_a_sweep_survives_a_killed_trial_and_an_interruption_and_asha_remembers(arguments, tmp_path):
    asha = Sweep(
        tmp_path,
        *(*arguments, "--set", "optim.epochs=4", "--winner-seeds", "0", "--scheduler", "asha"),
        *("--grid", "method.layers=1-2,2-3,3-4,4-4"),
    )
    marker = str(tmp_path / "killed")

    def score(setting, numbers):
        import os
        import signal
        from pathlib import Path

        if numbers["epoch"] == 3 and not Path(marker).exists():  # its second epoch is kept and reported, or will be
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        good = setting["method.layers"] in ("1-2", "4-4")
        return numbers | ({"select.top1": 90.0 if good else 10.0} if "loss" in numbers else {})

    run_scored = functools.partial(run_trials, trainable=lambda shared: disturbed(shared, score))

    def interrupted(line):
        print(line)
        if "stopped after epoch" in line:
            signal.raise_signal(signal.SIGINT)  # Ctrl-C

    with pytest.raises(KeyboardInterrupt):
        asha.run_with(run_trials=run_scored, say=interrupted)
    assert free_cpus() == 2
    assert asha.statuses() == {"layers=1-2": "finished", "layers=2-3": "pruned"}
    assert [epoch["epoch"] for epoch in asha.trials["layers=1-2"].history] == [1, 2, 3, 4]
    (parent,), _ = asha.tracked()
    assert parent.info.status == "KILLED"
    before = asha.written()
    assert asha.run_with(run_trials=run_scored)
    assert asha.statuses() == {
        "layers=1-2": "finished",
        "layers=2-3": "pruned",
        "layers=3-4": "pruned",  # by the rungs of the first session
        "layers=4-4": "finished",
    }
    assert {name: asha.written()[name] for name in before} == before
    pruned = asha.trials["layers=3-4"]
    assert (pruned.epochs, pruned.metrics["select"]["top1"]) == (1, 10.0)
    assert pruned.cost["trainable"] > 0
    (parent,), children = asha.tracked()
    assert parent.info.status == "FINISHED"
    assert [(run.info.run_name[:10], run.info.status) for run in children] == [
        ("layers=1-2", "KILLED"),  # its process was lost
        ("layers=1-2", "FINISHED"),
        ("layers=2-3", "KILLED"),
        ("layers=3-4", "KILLED"),
        ("layers=4-4", "FINISHED"),
    ]
    assert not list((asha.folder.path / "runs" / ".ray").iterdir())
