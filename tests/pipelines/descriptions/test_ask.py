"""The stage that asks: what Ray may repeat, what two jobs may do at once, and lengths in tokens."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from pydantic import SecretStr

from llm_descriptions.budget import Budget
from llm_descriptions.prompts import Question
from llm_descriptions.store import DescriptionStore
from pipelines.descriptions.ask import Server, ask_batch, ask_missing
from tests.helpers.llm_server import LlmServer, sentences, status

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LlmServer() as server:
        yield server


def test_a_repeated_task_keeps_to_the_budget(server, tmp_path):
    """Ray runs a task again whose process was lost; without a budget it continues, with one it stops."""
    store, key = tmp_path / "s.sqlite", SecretStr(KEY)
    batch = pa.Table.from_pylist([{"label": "clap", "kind": "spatial", "n": 2}])
    (tmp_path / "ticket").touch()

    def asked(budget):
        target = Server("toy-chat", server.url, budget=budget)
        return ask_batch(batch, str(store), target, key, str(tmp_path / "ticket"))

    server.rule = lambda request: status(400, "no")
    assert asked(Budget(calls=5))["ends"] == ["class"]
    again = asked(Budget(calls=5))
    assert (again["ends"], again["usage"]) == (["run"], [[0, 0, 0]])
    assert "was lost" in again["error"][0]
    server.rule = lambda request: None
    assert asked(Budget()) == {"error": [""], "ends": [""], "usage": [[1, 11, 7]]}


def test_too_many_tokens_are_asked_again(server, tmp_path):
    server.plan.append(sentences("a hand", "two hands in front of a long row of people"))
    batch = pa.Table.from_pylist([{"label": "clap", "kind": "spatial", "n": 2}])
    target = Server("toy-chat", server.url, context=13)
    found = ask_batch(batch, str(tmp_path / "s.sqlite"), target, SecretStr(KEY), str(tmp_path / "ticket"))
    assert found["usage"] == [[2, 22, 14]]
    assert "string 2 has too many tokens" in server.asked[-1].body["messages"][-1]["content"]


@pytest.mark.ray
def test_two_jobs_on_one_store(server, tmp_path, ray_session):
    """Both fill it at once: each class is there once, whole, from one of them."""
    counter = iter(range(1000))

    def rule(request):
        number = next(counter)
        return sentences(f"first of {number}", f"second of {number}")

    server.rule = rule
    store = DescriptionStore(tmp_path / "out" / "descriptions.sqlite")
    questions = [Question(f"class {i}", "spatial", 2) for i in range(12)]
    target = Server("toy-chat", server.url, 4)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda _: ask_missing(store, questions, target, say=print), range(2)))
    assert [(outcome.stored, outcome.failed) for outcome in outcomes] == [(12, ()), (12, ())]
    assert len(store.keys()) == 12
    for key in store.keys():  # noqa: SIM118
        first, second = store.get(key)
        assert first.replace("first", "second") == second
