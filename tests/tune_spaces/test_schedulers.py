"""Schedulers that stop poor trials, with and without earlier sessions."""

from __future__ import annotations

import itertools
import math

import pytest

from tune_spaces.schedulers import build_scheduler
from tune_spaces.search import Objective, PastTrial, Search


def scheduler_of(kind, past=(), epochs=9, mode="max"):
    objective = Objective(metric="select.top1", mode=mode)
    return build_scheduler(Search(scheduler=kind, objectives=(objective,), epochs=epochs), past)


class Trial:
    """A trial as Ray Tune passes it to a scheduler."""

    def __init__(self, trial_id):
        self.trial_id = trial_id


class Trials:
    """Trials one after the other, each with the same score at every epoch."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.count = itertools.count()

    def run(self, value, epochs=9):
        """Return the epoch in which the scheduler stopped the trial, or 0."""
        trial = Trial(str(next(self.count)))
        self.scheduler.on_trial_add(None, trial)
        for epoch in range(1, epochs + 1):
            if self.scheduler.on_trial_result(None, trial, {"epoch": epoch, "select.top1": value}) == "STOP":
                return epoch
        final = {"epoch": epochs, "select.top1": value, "status": "finished"}
        assert self.scheduler.on_trial_result(None, trial, final) == "CONTINUE"
        self.scheduler.on_trial_complete(None, trial, final)
        return 0


@pytest.mark.parametrize("scheduler", ["asha", "median"])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_poor_trial_is_stopped_early_and_the_best_never(scheduler, mode):
    trials = Trials(scheduler_of(scheduler, mode=mode))
    sign = 1 if mode == "max" else -1
    assert [trials.run(sign * value) for value in (50.0, 51.0, 52.0, 53.0)] == [0, 0, 0, 0]
    assert trials.run(sign * 10.0) == 1
    assert trials.run(sign * 60.0) == 0


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_trial_is_not_stopped_after_its_last_epoch(scheduler):
    stopping = scheduler_of(scheduler, epochs=3)
    trials = Trials(stopping)
    for value in (50.0, 51.0, 52.0):
        trials.run(value, 3)
    late = Trial("late")
    stopping.on_trial_add(None, late)
    assert stopping.on_trial_result(None, late, {"epoch": 3, "select.top1": 1.0}) == "CONTINUE"


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_reports_without_a_score_do_not_change_decisions(scheduler):
    stopping = scheduler_of(scheduler)
    trials = Trials(stopping)
    for result in ({"status": "invalid", "epoch": 0}, {"epoch": 1}, {"epoch": 1, "select.top1": math.nan}):
        bad = Trial(str(result))
        stopping.on_trial_add(None, bad)
        assert stopping.on_trial_result(None, bad, result) == "CONTINUE"
        stopping.on_trial_complete(None, bad, result)
    assert [trials.run(value) for value in (50.0, 51.0, 52.0, 53.0, 1.0)] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_scheduler_learns_from_earlier_sessions(scheduler):
    by_epoch = dict.fromkeys(range(1, 10), 50.0)
    past = [PastTrial(setting={}, status="finished", by_epoch=by_epoch) for _ in range(4)]
    assert Trials(scheduler_of(scheduler)).run(1.0) == 0
    assert Trials(scheduler_of(scheduler, past)).run(1.0) == 1


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_scheduler_learns_from_earlier_trials_that_it_would_have_stopped(scheduler):
    """They ran at the same time, with too few others to compare to; replayed one by one, the rule would stop some."""
    past = [
        PastTrial(setting={}, status="finished", by_epoch={epoch: 60.0 - 10 * number - epoch for epoch in range(1, 6)})
        for number in range(5)
    ]
    assert Trials(scheduler_of(scheduler, past)).run(1.0) == 1
