"""The board between driver and workers."""

from __future__ import annotations

import pickle
import threading

import pytest

from pipelines.runs.board import Board, JobEnded, Mailbox, WorkerEnd
from pipelines.runs.progress import Resumed, ScoringStarted


@pytest.fixture
def heard(ray_session):
    return []


@pytest.fixture
def board(heard):
    with Board(lambda name, message: heard.append((name, message))) as board:
        yield board


def test_messages_come_with_the_name_of_their_job(board, heard):
    one, none = (pickle.loads(pickle.dumps(board.jobs.mailbox(name))) for name in ("one", ""))
    assert isinstance(one, Mailbox)
    one(Resumed(2))
    none(ScoringStarted("base", 3))
    board.jobs.end("one", WorkerEnd("wrong"))
    board.catch_up()
    assert heard == [("one", Resumed(2)), ("", ScoringStarted("base", 3)), ("one", JobEnded(WorkerEnd("wrong")))]


def test_jobs_are_given_out_in_order_until_they_have_ended(board):
    jobs = pickle.loads(pickle.dumps(board.jobs))
    for name in ("one", "two", "three"):
        board.add(name, {"job": name})
    board.drop("two")
    assert jobs.next() == jobs.next() == "one"  # as workers that are started again ask
    assert jobs.get("one") == {"job": "one"}
    jobs.end("one", WorkerEnd())
    assert jobs.next() == "three"
    jobs.end("three", WorkerEnd())
    board.close()
    assert jobs.next() == ""


def test_workers_wait_for_a_job_until_the_board_is_closed(board):
    got = []

    def work():
        while name := board.jobs.next():
            got.append(name)
            board.jobs.end(name, WorkerEnd())

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(0.5)
    assert worker.is_alive()
    board.add("late", 1)
    board.close()
    worker.join(30)
    assert not worker.is_alive()
    assert got == ["late"]
