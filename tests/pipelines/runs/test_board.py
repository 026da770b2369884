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


def test_workers_wait_for_a_job_while_more_may_come(board):
    threading.Timer(1, lambda: board.add("late", {"job": "late"})).start()
    assert board.jobs.next() == "late"
    board.jobs.end("late", WorkerEnd())
    board.catch_up()
    assert board.has_ended("late")
    board.add("late", {"job": "again"})
    assert not board.has_ended("late")
    assert board.jobs.get(board.jobs.next()) == {"job": "again"}
