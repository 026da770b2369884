"""Epochs reach MLflow once, even if it is away for a while."""

from __future__ import annotations

import pytest

from pipelines.runs.tracking import EpochLog


class FakeTracker:
    """A tracker that may be away."""

    def __init__(self):
        self.away = False
        self.epochs = []

    def epoch(self, epoch, metrics):
        if self.away:
            raise ConnectionError
        self.epochs.append((epoch, metrics["loss"]))


def test_epochs_that_mlflow_missed_are_logged_at_the_end():
    tracker, lines = FakeTracker(), []
    log = EpochLog(tracker, lines.append)
    history = [{"epoch": float(epoch), "loss": 1 / epoch} for epoch in (1, 2, 3, 4)]
    log(history[1])  # the first was trained under another driver
    tracker.away = True
    log(history[2])
    assert lines == ["MLflow did not take epoch 3 (ConnectionError); training continues"]
    tracker.away = False
    log(history[3])
    log.complete(history)
    assert [epoch for epoch, _ in tracker.epochs] == [2, 4, 1, 3]


def test_a_store_that_stays_away_is_an_error_at_the_end():
    tracker = FakeTracker()
    tracker.away = True
    with pytest.raises(ConnectionError):
        EpochLog(tracker, print).complete([{"epoch": 1.0, "loss": 1.0}])
