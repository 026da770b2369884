"""The search engine: what a search may be, TPE with a memory, rules that stop trials, and sweeps on Ray Tune."""

from __future__ import annotations

import itertools
import json
import math
import random
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from tune_spaces.domains import Choice, Integers, Layers, LogUniform, Uniform, decode, grid, sample
from tune_spaces.search import Done, Objective, Search, build_tuner
from vlmodels.errors import UserError

TOP1 = Objective(metric="select.top1")
COST = Objective(metric="cost.trainable", mode="min")
SMALL = {"method.layers": Layers(3), "method.dims": Choice(("64", "128"))}  # 12 settings
WIDE = {"method.layers": Layers(12), "optim.lr": LogUniform(1e-5, 1e-1)}


def tpe(space=SMALL, samples=20, objectives=(TOP1,), done=(), first=(), seed=1):
    from tune_spaces.engine import Tpe

    search = Search(kind="tpe", samples=samples, objectives=objectives, epochs=3, seed=seed)
    return Tpe(search, space, done, first)


def key(setting):
    return tuple(sorted(setting.items()))


def quality(setting):
    """Best with layers 8-12 and a rate of 0.001."""
    start, stop = map(int, setting["method.layers"].split("-"))
    return -abs(start - 8) - abs(stop - 12) - 4 * abs(math.log10(float(setting["optim.lr"])) + 3)


def run(searcher, count, score):
    """Let it suggest and learn in turn; the settings."""
    tried = []
    for number in range(count):
        found = searcher.suggest(str(number))
        if found == searcher.FINISHED:
            break
        tried.append(found["setting"])
        searcher.on_trial_complete(str(number), {"epoch": 3, "status": "finished", **score(found["setting"])})
    return tried


@pytest.mark.parametrize(
    ("text", "metric", "mode"),
    [
        ("select.top1", "select.top1", "max"),
        ("cost.trainable:min", "cost.trainable", "min"),
        ("cost.trainable", "cost.trainable", "min"),
        (" loss:min ", "loss", "min"),
        ("cost.x:max", "cost.x", "max"),
    ],
)
def test_objectives_are_read(text, metric, mode):
    assert Objective.parse(text) == Objective(metric=metric, mode=mode)


@pytest.mark.parametrize("text", ["", ":min", "select.top1:best"])
def test_an_objective_without_sense_is_refused(text):
    with pytest.raises(UserError, match="METRIC:min"):
        Objective.parse(text)


def test_all_that_is_wrong_with_a_search_is_said_at_once():
    with pytest.raises(UserError) as error:
        Search(kind="tpe", scheduler="asha", objectives=(TOP1, COST), epochs=2, grace=2, reduction=1)
    for part in ("--samples 20", "by one objective", "--grace 2", "2 epochs", "2 or more at each rung"):
        assert part in str(error.value)
    for wrong in (
        {"objectives": ()},
        {"objectives": (TOP1, TOP1)},
        {"samples": 3},
        {"scheduler": "median", "objectives": (COST,)},
        {"kind": "random"},
    ):
        with pytest.raises(UserError):
            Search(**{"objectives": (TOP1,), "epochs": 3} | wrong)


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_setting_survives_the_searchers_encoding(seed):
    from tune_spaces.engine import encode

    space = {**SMALL, "a.n": Integers(1, 7), "optim.lr": LogUniform(1.23456e-5, 0.1), "b": Uniform(-1, 2)}
    setting = sample(space, 1, seed)[0]
    assert decode(space, encode(space, setting)) == setting


def test_a_bound_of_more_digits_than_are_written_is_no_obstacle():
    searcher = tpe({"lr": LogUniform(1.23456e-5, 0.1)}, done=[Done(setting={"lr": "1.234e-05"}, status="failed")])
    assert searcher.suggest("1")["setting"]["lr"] != "1.234e-05"


def test_tpe_tries_every_setting_of_a_small_space_once_and_then_ends():
    searcher = tpe()
    asked = [searcher.suggest(str(number)) for number in range(13)]  # none is known to have ended
    assert asked.pop() == searcher.FINISHED
    assert sorted(key(found["setting"]) for found in asked) == sorted(map(key, grid(SMALL)))


def test_tpe_comes_closer_to_the_best_and_the_same_way_each_time():
    tried = run(tpe(WIDE, samples=40), 40, lambda setting: {"select.top1": quality(setting)})
    assert tried == run(tpe(WIDE, samples=40), 40, lambda setting: {"select.top1": quality(setting)})
    assert tried[:5] != run(tpe(WIDE, samples=40, seed=2), 5, lambda setting: {"select.top1": quality(setting)})
    worth = [quality(setting) for setting in tried]
    assert sum(worth[-10:]) / 10 > sum(worth[:10]) / 10 + 2
    assert max(worth) > max(quality(setting) for setting in sample(WIDE, 20, 1))


def test_tpe_goes_on_where_an_earlier_session_stopped():
    known = [
        Done(setting=setting, status="finished", metrics={"select.top1": quality(setting)})
        for setting in sample(WIDE, 30, 3)
    ]
    fresh, resumed = tpe(WIDE, samples=40), tpe(WIDE, samples=40, done=known)
    worth = {
        searcher: [quality(setting) for setting in run(searcher, 8, lambda setting: {"select.top1": quality(setting)})]
        for searcher in (fresh, resumed)
    }
    assert sum(worth[resumed]) > sum(worth[fresh]) + 8  # it knows already


def test_tpe_repeats_nothing_and_takes_up_what_was_cut_off():
    every = grid(SMALL)
    known = [Done(setting=setting, status="finished", metrics={"select.top1": 1.0}) for setting in every[:6]]
    cut = [every[9], every[0]]  # the second had ended after all
    tried = run(tpe(done=known, first=cut), 12, lambda setting: {"select.top1": 0.5})
    assert tried[0] == every[9]
    assert sorted(map(key, tried)) == sorted(map(key, every[6:]))


def test_tpe_weighs_two_objectives_and_remembers_both():
    def score(setting):
        start, stop = map(int, setting["method.layers"].split("-"))
        return {"select.top1": float(stop - start), "cost.trainable": int(setting["method.dims"])}

    space = SMALL | {"method.layers": Layers(8)}
    every = grid(space)
    known = [Done(setting=s, status="finished", metrics=score(s)) for s in random.Random(1).sample(every, 12)]
    searcher = tpe(space, samples=40, objectives=(TOP1, COST), done=known)
    tried = run(searcher, 15, score)
    told = [trial.values for trial in searcher._study.trials if trial.state == TrialState.COMPLETE]
    assert told == [list(score(setting).values()) for setting in [*(trial.setting for trial in known), *tried]]
    mean = {
        name: sum(score(s)["select.top1"] for s in found) / len(found) for name, found in (("of", every), ("in", tried))
    }
    assert mean["in"] > mean["of"] + 1  # long ranges are not dominated
    assert sum(setting["method.dims"] == "64" for setting in tried) > 7  # the cheap half is


@pytest.mark.parametrize(
    ("result", "error", "state"),
    [
        ({"status": "finished", "epoch": 3, "select.top1": 1.0}, False, TrialState.COMPLETE),
        ({"epoch": 1, "select.top1": 1.0}, False, TrialState.PRUNED),
        ({"status": "invalid", "epoch": 0}, False, TrialState.FAIL),
        ({"status": "diverged", "epoch": 2, "select.top1": 9.0}, False, TrialState.FAIL),
        ({"status": "finished", "epoch": 3, "select.top1": math.nan}, False, TrialState.FAIL),
        ({"status": "finished", "epoch": 3}, False, TrialState.FAIL),
        ({"epoch": 1, "select.top1": 1.0}, True, TrialState.FAIL),
        (None, True, TrialState.FAIL),
    ],
)
def test_tpe_is_told_how_a_trial_ended(result, error, state):
    searcher = tpe()
    searcher.suggest("a")
    searcher.on_trial_complete("a", result, error)
    assert [trial.state for trial in searcher._study.trials] == [state]


def test_tpe_knows_how_earlier_trials_ended():
    every = grid(SMALL)
    known = [
        Done(setting=every[0], status="finished", metrics={"select.top1": 3.0}, by_epoch={1: 1.0, 2: 3.0}),
        Done(setting=every[1], status="pruned", metrics={"select.top1": 2.0}, by_epoch={1: 2.0}),
        Done(setting=every[2], status="pruned"),
        Done(setting=every[3], status="invalid"),
        Done(setting=every[4], status="finished"),
    ]
    states = [trial.state.name for trial in tpe(done=known)._study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL"]


def rule(scheduler, done=(), epochs=9, mode="max"):
    from tune_spaces import search

    objective = Objective(metric="select.top1", mode=mode)
    return search._scheduler(Search(scheduler=scheduler, objectives=(objective,), epochs=epochs), done)


class Trained:
    """Trials in turn, each with the same score at every epoch."""

    def __init__(self, stopping):
        self.stopping, self.count = stopping, itertools.count()

    def __call__(self, value, epochs=9):
        trial = SimpleNamespace(trial_id=str(next(self.count)))
        trial = type("Trial", (), vars(trial))()
        self.stopping.on_trial_add(None, trial)
        for epoch in range(1, epochs + 1):
            if self.stopping.on_trial_result(None, trial, {"epoch": epoch, "select.top1": value}) == "STOP":
                return epoch
        final = {"epoch": epochs, "select.top1": value, "status": "finished"}
        assert self.stopping.on_trial_result(None, trial, final) == "CONTINUE"
        self.stopping.on_trial_complete(None, trial, final)
        return 0


@pytest.mark.parametrize("scheduler", ["asha", "median"])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_what_is_behind_is_stopped_early_and_what_leads_never(scheduler, mode):
    trained, sign = Trained(rule(scheduler, mode=mode)), 1 if mode == "max" else -1
    assert [trained(sign * value) for value in (50.0, 51.0, 52.0, 53.0)] == [0, 0, 0, 0]
    assert trained(sign * 10.0) == 1
    assert trained(sign * 60.0) == 0


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_trial_that_trained_to_its_end_is_not_stopped_there(scheduler):
    stopping = rule(scheduler, epochs=3)
    trained = Trained(stopping)
    for value in (50.0, 51.0, 52.0):
        trained(value, 3)
    late = type("Trial", (), {"trial_id": "late"})()
    stopping.on_trial_add(None, late)
    assert stopping.on_trial_result(None, late, {"epoch": 3, "select.top1": 1.0}) == "CONTINUE"


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_report_without_a_score_disturbs_no_rule(scheduler):
    stopping = rule(scheduler)
    trained = Trained(stopping)
    for result in ({"status": "invalid", "epoch": 0}, {"epoch": 1}, {"epoch": 1, "select.top1": math.nan}):
        bad = type("Trial", (), {"trial_id": str(result)})()
        stopping.on_trial_add(None, bad)
        assert stopping.on_trial_result(None, bad, result) == "CONTINUE"
        stopping.on_trial_complete(None, bad, result)
    assert [trained(value) for value in (50.0, 51.0, 52.0, 53.0, 1.0)] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_rule_remembers_earlier_sessions(scheduler):
    by_epoch = dict.fromkeys(range(1, 10), 50.0)
    done = [Done(setting={}, status="finished", by_epoch=by_epoch) for _ in range(4)]
    assert Trained(rule(scheduler))(1.0) == 0
    assert Trained(rule(scheduler, done))(1.0) == 1


def test_folders_have_safe_names():
    from tune_spaces.engine import folder_name

    trial = SimpleNamespace(trial_id="1a2b", config={"setting": {"method.layers": "8-12", "a.b": "x/../é y"}})
    assert folder_name(trial) == "layers=8-12,b=x_..___y-1a2b"
    trial.config = {"setting": {"method.prompt": "p" * 500}}
    assert len(folder_name(trial)) < 120


def sleeper(log, seconds=0.2):
    """A function for Ray's processes: reports 3 epochs, scores setting ``a.n``; fails as setting ``how`` says."""

    def trial(config):
        import json
        import os
        import time

        import ray
        from ray import tune

        def note(what):
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps([what, os.getpid(), time.time(), config]) + "\n")

        setting = config["setting"]
        value, how = float(setting["a.n"]), setting.get("how")
        note("start")
        try:
            for epoch in (1, 2, 3):
                time.sleep(seconds)
                if how == "raise":
                    raise RuntimeError("on purpose")
                if how == "killed" and not log.with_name("killed").exists():
                    log.with_name("killed").touch()
                    os.kill(os.getpid(), 9)
                tune.report({"epoch": epoch, "select.top1": value})
            free = ray.available_resources().get("CPU", 0.0)
            final = {} if how == "invalid" else {"select.top1": value, "cost.trainable": -value, "free": free}
            tune.report({"epoch": 3, "status": how if how == "invalid" else "finished", **final})
        finally:
            if how == "slow":
                time.sleep(2.5)
            note("end")

    return trial


def keeper():
    """A callback that notes how trials end."""
    from ray.tune import Callback

    class Keeper(Callback):
        ended: list

        def __init__(self):
            self.ended = []

        def on_trial_complete(self, *, trial, **_):
            self.ended.append((trial.config["setting"], trial.last_result))

        def on_trial_error(self, *, trial, **_):
            said = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()[-1]
            self.ended.append((trial.config["setting"], {"error": said}))

    return Keeper()


def notes(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def scalars(folder):
    """What TensorBoard reads: each event's tag and value by step."""
    from tensorboardX.proto.event_pb2 import Event

    found, hparams = {}, set()
    (path,) = folder.glob("events.out.tfevents.*")
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                hparams.add(bytes(value.metadata.plugin_data.content))
            else:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found, b"".join(hparams)


def test_listed_trials_on_ray(ray_session, tmp_path, capfd):
    """Processes are kept; losers are stopped, broken ones do not stop the sweep, and all is silent."""
    kinds = [("9", ""), ("8", ""), ("1", "slow"), ("7", "raise"), ("6", "killed"), ("5", "invalid"), ("10", "")]
    kinds += [(str(number), "") for number in (11, 12, 13)] + [("2", "slow")]
    listed = [{"setting": {"a.n": number, "how": how}, "seed": 1} for number, how in kinds]
    search = Search(scheduler="asha", objectives=(TOP1,), epochs=3, reduction=2)
    log, kept = tmp_path / "log", keeper()
    log.touch()
    tuner = build_tuner(
        sleeper(log),
        search,
        space={},
        settings=listed,
        done=[Done(setting={}, status="finished", by_epoch={1: 4.0, 2: 4.0, 3: 4.0})] * 3,
        resources={"CPU": 1},
        concurrent=2,
        storage=str(tmp_path),
        name="tune",
        max_failures=1,
        callbacks=[kept],
    )
    capfd.readouterr()
    tuner.fit()
    written = "".join(capfd.readouterr())
    assert not [line for line in written.splitlines() if "(raylet)" not in line and line.strip()]

    ended = {setting["a.n"]: result for setting, result in kept.ended}
    assert len(kept.ended) == len(listed) == len(ended)
    assert {n for n, result in ended.items() if result.get("status") == "finished"} >= {"10", "11", "12", "13"}
    assert ended["5"]["status"] == "invalid"
    assert "on purpose" in ended["7"]["error"]
    for number in ("1", "2"):  # behind from the first epoch
        assert ended[number]["epoch"] == 1
        assert "status" not in ended[number]

    told = notes(log)
    starts = {n: [note for note in told if note[0] == "start" and note[3]["setting"]["a.n"] == n] for n in ended}
    assert {n: len(found) for n, found in starts.items() if len(found) != 1} == {"7": 2, "6": 2}
    assert {note[3]["setting"]["a.n"] for note in told if note[0] == "end"} == set(ended)  # all cleaned up
    running = set()
    for what, pid, *_ in told:  # one trial at a time in a process
        if what == "start":
            assert pid not in running
            running.add(pid)
        else:
            running.discard(pid)
    by_process = {}
    for note in told:
        by_process.setdefault(note[1], []).append(note)
    waits = [
        later[2] - earlier[2]
        for found in by_process.values()
        for earlier, later in itertools.pairwise(found)
        if (earlier[0], later[0]) == ("end", "start")
    ]
    assert len(waits) >= 4  # processes go on with another trial
    assert sorted(waits)[len(waits) // 2] < 1

    (folder,) = (tmp_path / "tune").glob("n=13,how=-*")
    found, hparams = scalars(folder)
    assert found["ray/tune/select.top1"] == {1: 13.0, 2: 13.0, 3: 13.0}
    assert b"a.n" in hparams
    rows = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 3]


def test_tpe_on_ray_leaves_all_cpus_to_the_trials_workers(ray_session, tmp_path):
    log, kept = tmp_path / "log", keeper()
    search = Search(kind="tpe", samples=6, objectives=(TOP1, COST), epochs=3)
    done = [Done(setting={"a.n": "1"}, status="finished", metrics={"select.top1": 1.0, "cost.trainable": -1.0})]
    tuner = build_tuner(
        sleeper(log, 0.05),
        search,
        space={"a.n": Integers(1, 4)},
        settings=[{"setting": {"a.n": "3"}}],
        done=done,
        resources={"CPU": 0},
        concurrent=2,
        storage=str(tmp_path),
        name="tune",
        max_failures=0,
        callbacks=[kept],
    )
    tuner.fit()
    assert notes(log)[0][3] == {"setting": {"a.n": "3"}}
    assert sorted(setting["a.n"] for setting, _ in kept.ended) == ["2", "3", "4"]  # all there are, and 1 is known
    assert {result["free"] for _, result in kept.ended} == {2.0}
