"""Messages of the workers and the lines that a reader gets for them."""

from __future__ import annotations

import pickle

import pytest

from pipelines.runs.progress import (
    EpochDone,
    Fetched,
    Lost,
    Mistake,
    Progress,
    Resized,
    Resumed,
    ScoringStarted,
    StepDone,
    WorkerUp,
)

EPOCH = {"epoch": 1.0, "loss": 1.25, "train_top1": 50.0, "clips_per_second": 8.0, "seconds": 10.0}


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


class Run:
    """A run of four epochs, and the lines about it."""

    def __init__(self, **settings):
        self.lines = []
        self.clock = Clock()
        self.progress = Progress("run", 4, self.lines.append, clock=self.clock, **settings)

    def hear(self, *messages):
        for message in messages:
            self.progress.hear(message)
        return self.lines


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        (WorkerUp(0, 1, 7, "10.0.0.1"), ["run: 1 worker is up after 0 s, on 10.0.0.1 (rank 0)"]),
        (WorkerUp(0, 2, 7, "10.0.0.1"), []),  # the other is not up yet
        (Fetched(1, 3, 2.4), ["run: rank 1 has fetched 3 shards in 2 s"]),
        (Fetched(0, 1, 0.0), ["run: rank 0 has fetched 1 shard in 0 s"]),
        (Resumed(2), ["run: continuing after epoch 2"]),
        (StepDone(1, 50, 200), ["run: epoch 1, step 50/200"]),
        (StepDone(1, 50, 199), []),
        (
            EpochDone(EPOCH | {"select_top1": 40.0}),
            ["run: epoch 1/4  loss 1.250  train 50.0 %  select 40.0 %  8 clips/s  30 s left"],
        ),
        (ScoringStarted("novel", 12), ["run: scoring 12 novel videos"]),
        (Mistake("the disk is full"), []),
        (
            Lost((), "why", retried=True, counted=True),
            ["run: lost the workers (why); starting again from the last epoch kept"],
        ),
        (Resized(1, 2), ["run: continuing with 1 worker instead of 2, as no room was found for more"]),
    ],
)
def test_each_message_has_its_line_and_travels(message, lines):
    again = pickle.loads(pickle.dumps(message))
    assert again == message
    assert len(pickle.dumps(message)) < 1000
    assert Run().hear(again) == lines


def test_machines_are_named_with_their_ranks():
    run = Run()
    run.clock.now = 12.0
    hosts = ("10.0.0.1", "10.0.0.2", "10.0.0.2")
    assert not run.progress.working
    (line,) = run.hear(*(WorkerUp(rank, 3, 7, host) for rank, host in enumerate(hosts)))
    assert line == "run: 3 workers are up after 12 s, on 10.0.0.1 (rank 0), 10.0.0.2 (ranks 1-2)"
    assert run.progress.working
    assert run.progress.hosts == dict(enumerate(hosts))
    run.hear(WorkerUp(0, 1, 8, "10.0.0.3"))
    assert run.progress.hosts == {0: "10.0.0.3"}
    assert run.progress.restarts == 1


def test_the_rest_of_the_training_is_estimated_since_the_workers_started():
    run = Run()
    for number, now in ((1, 10.0), (2, 30.0)):
        run.clock.now = now
        run.hear(EpochDone(EPOCH | {"epoch": float(number)}))
    assert [line.rpartition("  ")[2] for line in run.lines] == ["30 s left", "30 s left"]
    run.clock.now = 100.0
    run.hear(Resumed(2))
    run.clock.now = 130.0
    assert run.hear(EpochDone(EPOCH | {"epoch": 3.0, "seconds": 20.0}))[-1].endswith("  20 s left")
    assert run.progress.seen == {1, 2, 3}


def test_a_mistake_is_kept_until_the_workers_recover():
    run = Run()
    run.hear(WorkerUp(0, 1, 7, "h"), Mistake("the disk is full"))
    assert (run.progress.mistake, run.progress.working) == ("the disk is full", False)
    run.hear(EpochDone(EPOCH))
    assert run.progress.mistake == ""
    run.hear(Mistake("the disk is full"), Lost((), "why", retried=True, counted=True))
    assert run.progress.mistake == ""


def test_callbacks_get_epochs_in_order_and_messages_before():
    calls = []
    run = Run(
        on_epoch=[lambda epoch: calls.append(("first", epoch)), lambda epoch: calls.append(("second", epoch))],
        on_message=lambda message: calls.append(type(message).__name__),
    )
    run.hear(Resumed(0), EpochDone(EPOCH))
    assert calls == ["Resumed", "EpochDone", ("first", EPOCH), ("second", EPOCH)]


def test_a_callback_may_end_the_run():
    def stop(_):
        raise SystemExit

    with pytest.raises(SystemExit):
        Run(on_epoch=[stop]).hear(EpochDone(EPOCH))
