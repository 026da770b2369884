"""Budgets of calls and tokens, and estimates in advance."""

from __future__ import annotations

import pytest

from llm_descriptions.budget import Budget, BudgetError, estimate_completion_tokens, estimate_prompt_tokens
from llm_descriptions.prompts import MSTA_V1
from tests.helpers.llm_server import LlmServer, completion, cut, run, sends, slow, status


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-any")
    with LlmServer() as server:
        yield server


def test_a_budget_of_calls_is_never_exceeded(server):
    server.plan.append(status(500))
    questions = [(f"class {i}", "spatial", 2) for i in range(10)]
    answers, usage = run(server, *questions, concurrency=3, budget=Budget(calls=5))
    assert len(server.asked) == usage.calls == 5
    stopped = [answer for answer in answers if isinstance(answer, BudgetError)]
    assert len(stopped) == 6
    assert "the budget of 5 calls is spent" in str(stopped[0])
    assert all(len(answer.texts) == 2 for answer in answers if answer not in stopped)


@pytest.mark.parametrize("counted", [True, False])
def test_a_budget_of_tokens_is_not_exceeded(server, counted):
    usage = {"prompt_tokens": 300, "completion_tokens": 100} if counted else None
    server.rule = lambda request: completion({"content": '{"sentences": ["a", "b"]}'}, usage=usage)
    questions = [(f"class {i}", "spatial", 2) for i in range(10)]
    answers, spent = run(server, *questions, concurrency=2, budget=Budget(tokens=1000))
    assert 500 < spent.tokens <= 1000
    stopped = [answer for answer in answers if isinstance(answer, BudgetError)]
    assert len(stopped) == 10 - len(server.asked)
    if counted:
        assert len(server.asked) == 2
    assert "the budget of 1000 tokens has no room for one more question" in str(stopped[0])


@pytest.mark.parametrize("bad", [cut, slow(3), sends('{"choices": ['), sends('{"choices": null}')])
def test_failed_calls_cost_their_estimate(server, bad):
    server.plan.append(bad)
    (described,), usage = run(server, ("clap", "spatial", 2), timeout_s=1.5)
    asked = estimate_prompt_tokens(MSTA_V1.instruction("spatial", 2), MSTA_V1.question("clap", "spatial", 2))
    assert (usage.prompt_tokens, usage.completion_tokens) == (asked + 11, estimate_completion_tokens(2) + 7)
    assert described.provenance.prompt_tokens == usage.prompt_tokens


def test_failed_calls_cost_the_tokens_that_the_server_counted(server):
    counted = '{"prompt_tokens": 500, "completion_tokens": 40}'
    server.plan.extend([sends(f'{{"choices": null, "usage": {counted}}}'), status(500), status(429)])
    _, usage = run(server, ("clap", "spatial", 2))
    assert (usage.prompt_tokens, usage.completion_tokens) == (511, 47), "a refused call costs nothing"


def test_a_budget_below_one_question_sends_no_request(server):
    with pytest.raises(BudgetError, match="0 spent; about"):
        run(server, ("clap", "spatial", 2), budget=Budget(tokens=10))
    assert server.requests == []
