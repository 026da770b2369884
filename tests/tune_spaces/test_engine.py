"""What Ray Tune is given: TPE with a memory, rules that stop trials, safe names."""

from __future__ import annotations

import itertools
import math
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from tune_spaces.domains import Choice, Integers, Layers, LogUniform, Uniform, decode, grid, sample
from tune_spaces.search import Done, Objective, Search

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


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_rule_remembers_trials_that_it_would_have_stopped(scheduler):
    """Side by side they had too few to be compared with; one after the other, the rule would stop some that went on."""
    done = [
        Done(setting={}, status="finished", by_epoch={epoch: 60.0 - 10 * number - epoch for epoch in range(1, 6)})
        for number in range(5)
    ]
    assert Trained(rule(scheduler, done))(1.0) == 1


def test_folders_have_safe_names():
    from tune_spaces.engine import folder_name

    trial = SimpleNamespace(trial_id="1a2b", config={"setting": {"method.layers": "8-12", "a.b": "x/../é y"}})
    assert folder_name(trial) == "layers=8-12,b=x_..___y-1a2b"
    trial.config = {"setting": {"method.prompt": "p" * 500}}
    assert len(folder_name(trial)) < 120
