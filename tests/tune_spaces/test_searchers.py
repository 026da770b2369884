"""The TPE searcher: it learns, resumes, and repeats nothing."""

from __future__ import annotations

import math
import random

import pytest
from optuna.trial import TrialState

from tune_spaces.domains import Choice, Layers, LogUniform, grid, sample
from tune_spaces.search import Objective, PastTrial, Search
from tune_spaces.searchers import TpeSearcher

TOP1 = Objective(metric="select.top1")
COST = Objective(metric="cost.trainable", mode="min")
SMALL = {"method.layers": Layers(3), "method.dims": Choice(("64", "128"))}  # 12 settings
WIDE = {"method.layers": Layers(12), "optim.lr": LogUniform(1e-5, 1e-1)}


def tpe(space=SMALL, samples=20, objectives=(TOP1,), past=(), first=(), seed=1):
    search = Search(kind="tpe", samples=samples, objectives=objectives, epochs=3, seed=seed)
    return TpeSearcher(search, space, past, first)


def key(setting):
    return tuple(sorted(setting.items()))


def quality(setting):
    """Score a setting; layers 8-12 and a learning rate of 0.001 are best."""
    start, stop = map(int, setting["method.layers"].split("-"))
    return -abs(start - 8) - abs(stop - 12) - 4 * abs(math.log10(float(setting["optim.lr"])) + 3)


def run(searcher, count, score):
    """Let the searcher suggest and learn in turn; return the settings."""
    tried = []
    for number in range(count):
        found = searcher.suggest(str(number))
        if found == searcher.FINISHED:
            break
        tried.append(found["setting"])
        searcher.on_trial_complete(str(number), {"epoch": 3, "status": "finished", **score(found["setting"])})
    return tried


def test_a_bound_with_more_digits_than_are_written_works():
    searcher = tpe({"lr": LogUniform(1.23456e-5, 0.1)}, past=[PastTrial(setting={"lr": "1.234e-05"}, status="failed")])
    assert searcher.suggest("1")["setting"]["lr"] != "1.234e-05"


def test_tpe_tries_every_setting_of_a_small_space_once_and_then_ends():
    searcher = tpe()
    asked = [searcher.suggest(str(number)) for number in range(13)]  # none of them has ended yet
    assert asked.pop() == searcher.FINISHED
    assert sorted(key(found["setting"]) for found in asked) == sorted(map(key, grid(SMALL)))


def test_tpe_improves_and_is_reproducible():
    tried = run(tpe(WIDE, samples=40), 40, lambda setting: {"select.top1": quality(setting)})
    assert tried == run(tpe(WIDE, samples=40), 40, lambda setting: {"select.top1": quality(setting)})
    assert tried[:5] != run(tpe(WIDE, samples=40, seed=2), 5, lambda setting: {"select.top1": quality(setting)})
    worth = [quality(setting) for setting in tried]
    assert sum(worth[-10:]) / 10 > sum(worth[:10]) / 10 + 2
    assert max(worth) > max(quality(setting) for setting in sample(WIDE, 20, 1))


def test_tpe_learns_from_an_earlier_session():
    known = [
        PastTrial(setting=setting, status="finished", metrics={"select.top1": quality(setting)})
        for setting in sample(WIDE, 30, 3)
    ]
    fresh, resumed = tpe(WIDE, samples=40), tpe(WIDE, samples=40, past=known)
    worth = {
        searcher: [quality(setting) for setting in run(searcher, 8, lambda setting: {"select.top1": quality(setting)})]
        for searcher in (fresh, resumed)
    }
    assert sum(worth[resumed]) > sum(worth[fresh]) + 8


def test_tpe_repeats_nothing_and_starts_with_unfinished_settings():
    every = grid(SMALL)
    known = [PastTrial(setting=setting, status="finished", metrics={"select.top1": 1.0}) for setting in every[:6]]
    cut = [every[9], every[0]]  # an earlier session finished the second
    tried = run(tpe(past=known, first=cut), 12, lambda setting: {"select.top1": 0.5})
    assert tried[0] == every[9]
    assert sorted(map(key, tried)) == sorted(map(key, every[6:]))


def test_tpe_balances_two_objectives_and_learns_both_from_an_earlier_session():
    def score(setting):
        start, stop = map(int, setting["method.layers"].split("-"))
        return {"select.top1": float(stop - start), "cost.trainable": int(setting["method.dims"])}

    space = SMALL | {"method.layers": Layers(8)}
    every = grid(space)
    known = [PastTrial(setting=s, status="finished", metrics=score(s)) for s in random.Random(1).sample(every, 12)]
    searcher = tpe(space, samples=40, objectives=(TOP1, COST), past=known)
    tried = run(searcher, 15, score)
    learned = [trial.values for trial in searcher.study.trials if trial.state == TrialState.COMPLETE]
    assert learned == [list(score(setting).values()) for setting in [*(trial.setting for trial in known), *tried]]
    mean = {
        name: sum(score(s)["select.top1"] for s in found) / len(found)
        for name, found in (("all", every), ("tried", tried))
    }
    assert mean["tried"] > mean["all"] + 1  # no setting dominates a long range
    assert sum(setting["method.dims"] == "64" for setting in tried) > 7  # cheap settings dominate the others


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
def test_tpe_learns_how_a_trial_ended(result, error, state):
    searcher = tpe()
    searcher.suggest("a")
    searcher.on_trial_complete("a", result, error)
    assert [trial.state for trial in searcher.study.trials] == [state]


def test_tpe_learns_how_trials_of_an_earlier_session_ended():
    every = grid(SMALL)
    known = [
        PastTrial(setting=every[0], status="finished", metrics={"select.top1": 3.0}, by_epoch={1: 1.0, 2: 3.0}),
        PastTrial(setting=every[1], status="pruned", metrics={"select.top1": 2.0}, by_epoch={1: 2.0}),
        PastTrial(setting=every[2], status="pruned"),
        PastTrial(setting=every[3], status="invalid"),
        PastTrial(setting=every[4], status="finished"),
    ]
    states = [trial.state.name for trial in tpe(past=known).study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL"]
