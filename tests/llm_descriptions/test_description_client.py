"""The client against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from llm_server import LlmServer, cut, good, says, sentences, slow, status

from llm_descriptions.client import DescriptionClient
from llm_descriptions.errors import DescriptionError
from llm_descriptions.failures import AnswerError, Retry, ServerError

KEY = "sk-very-secret-0123456789"
GOOD = ("A video about phrase 0 of clap.", "A video about phrase 1 of clap.")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LlmServer() as server:
        yield server


def run(server, *questions, **options):
    """Ask all questions at once; returns results (or raises, if there is but one) and the usage."""

    async def ask():
        options.setdefault("first_delay_s", 0.01)
        model = options.pop("model", "toy-chat")
        async with DescriptionClient(model, base_url=server.url, **options) as client:
            calls = [client.describe(*question) for question in questions]
            return await asyncio.gather(*calls, return_exceptions=len(calls) > 1), client.usage

    return asyncio.run(ask())


def test_good_answer(server):
    (described,), usage = run(server, ("clap", "spatial", 2))
    assert described.texts == GOOD
    provenance = described.provenance
    assert (provenance.prompt_tokens, provenance.completion_tokens, provenance.origin) == (11, 7, "")
    assert provenance.host == server.url.split("/")[2]
    assert datetime.fromisoformat(provenance.created).tzinfo is not None
    assert usage.calls == len(server.asked) == 1
    request = server.asked[0]
    assert request.authorization == f"Bearer {KEY}"
    assert [message["role"] for message in request.body["messages"]] == ["system", "user"]
    assert request.question == "Please give me 2 sentences describing the visual appearance of the action clap"


@pytest.mark.parametrize("step", [status(429), status(500), status(503), status(408), cut])
def test_passing_failures_are_retried(server, step):
    server.plan.extend([step, step])
    (described,), usage = run(server, ("clap", "spatial", 2))
    assert described.texts == GOOD
    assert usage.calls == 3


def test_slow_answer_is_asked_again(server):
    server.plan.append(slow(0.5))
    (described,), usage = run(server, ("clap", "spatial", 2), timeout_s=0.1)
    assert described.texts == GOOD
    assert usage.calls == 2


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_holds_for_all(server, as_date):
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if as_date else "0.6"
    server.plan.append(status(429, Retry_After=when))
    start = time.monotonic()
    answers, _ = run(server, *[(f"class {i}", "spatial", 2) for i in range(3)], concurrency=1)
    assert all(len(answer.texts) == 2 for answer in answers)
    first, second = server.asked[0], server.asked[1]
    assert second.at - first.at >= 0.55
    assert time.monotonic() - start < 5


def test_one_call_told_to_wait_stops_the_others_too(server):
    server.plan.extend([status(429, Retry_After="0.8"), slow(0.2)])
    run(server, *[(f"class {i}", "spatial", 2) for i in range(4)], concurrency=2)
    times = sorted(request.at for request in server.asked)
    assert len(times) == 5
    assert times[2] - times[0] >= 0.75


def test_retry_after_beyond_patience(server):
    server.plan.append(status(429, Retry_After="7200"))
    with pytest.raises(AnswerError, match=r"'clap'.*asks to wait 7200 s"):
        run(server, ("clap", "spatial", 2))


def test_failing_for_good_is_this_classs_error(server):
    server.rule = lambda request: status(500, "boom") if "fall" in request.question else None
    (fell, clapped), usage = run(server, ("fall", "spatial", 2), ("clap", "spatial", 2))
    assert isinstance(fell, AnswerError)
    assert "no reply" in str(fell)
    assert "in 6 attempts: boom" in str(fell)
    assert clapped.texts == GOOD
    assert usage.calls == 7


@pytest.mark.parametrize(
    "bad",
    [
        says("not json"),
        says(None),
        says('{"sentences": ["a", "b"'),
        sentences("one"),
        sentences("one", "two", "three"),
        sentences("one", "One."),
        sentences("one", ""),
        says("I'm sorry, but I can't help with that."),
    ],
)
def test_invalid_answers_are_asked_again_with_the_reason(server, bad):
    server.plan.extend([bad, bad])
    (described,), usage = run(server, ("clap", "spatial", 2))
    assert described.texts == GOOD
    assert usage.calls == 3
    assert described.provenance.prompt_tokens == 33, "bad answers were paid for"
    last = server.asked[-1].body["messages"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "user"]
    assert "not usable: the answer" in last[-1]["content"]


def test_invalid_answers_are_not_asked_for_ever(server):
    server.rule = lambda request: sentences("one")
    with pytest.raises(AnswerError, match=r"'clap' \(spatial\): toy-chat at http.*3 unusable.*1 strings"):
        run(server, ("clap", "spatial", 2))
    assert len(server.asked) == 3


def test_a_server_without_json_mode(server):
    def rule(request):
        return status(400, "'response_format' is not supported") if "response_format" in request.body else good

    server.rule = rule
    answers, usage = run(server, ("clap", "spatial", 2), ("run", "spatial", 2), concurrency=1)
    assert all(len(answer.texts) == 2 for answer in answers)
    assert usage.calls == 3, "learnt once"


def test_concurrency_is_bounded_and_used(server):
    server.rule = lambda request: slow(0.1)
    start = time.monotonic()
    run(server, *[(f"class {i}", "spatial", 2) for i in range(12)], concurrency=4)
    assert server.most_open == 4
    assert time.monotonic() - start < 12 * 0.1


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (status(401, f"Incorrect API key provided: {KEY}"), "refuses the key.*OPENAI_API_KEY"),
        (status(402, "Insufficient Balance"), "no credit left"),
        (status(429, "You exceeded your current quota"), "no credit left"),
        (status(400, "Model Not Exist"), "does not know the model.*--model"),
        (status(404, "404 page not found"), "no chat completions.*'/v1'"),
    ],
)
def test_what_no_retry_mends_ends_all(server, step, reason):
    server.rule = lambda request: step
    answers, usage = run(server, *[(f"class {i}", "spatial", 2) for i in range(5)], concurrency=1)
    assert all(isinstance(answer, ServerError) for answer in answers)
    assert usage.calls == 1
    with pytest.raises(ServerError, match=reason) as caught:
        raise answers[-1]
    assert server.url in str(caught.value)
    assert "toy-chat" in str(caught.value)
    assert KEY not in str(caught.value)


def test_unknown_model(server):
    with pytest.raises(ServerError, match=r"'gpt-9'.*does not know the model.*--model"):
        run(server, ("clap", "spatial", 2), model="gpt-9")


def test_a_refused_question_is_one_classs_error(server):
    server.rule = lambda request: status(400, "content policy") if "fall" in request.question else None
    (fell, clapped), _ = run(server, ("fall", "spatial", 2), ("clap", "spatial", 2))
    assert isinstance(fell, AnswerError)
    assert "'fall'" in str(fell)
    assert clapped.texts == GOOD


class Nowhere:
    def __init__(self):
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"


def test_no_server():
    start = time.monotonic()
    with pytest.raises(ServerError, match=r"cannot reach http://127.*'toy-chat'.*--base-url"):
        run(Nowhere(), ("clap", "spatial", 2))

    async def check():
        async with DescriptionClient("toy-chat", base_url=Nowhere().url) as client:
            await client.check()

    with pytest.raises(ServerError, match="cannot reach"):
        asyncio.run(check())
    assert time.monotonic() - start < 5


def test_check_of_a_server(server):
    async def check():
        async with DescriptionClient("toy-chat", base_url=server.url) as client:
            await client.check()

    asyncio.run(check())
    assert server.asked == []


@pytest.mark.parametrize("url", ["localhost:80/v1", "ftp://x/v1", "http://", "nonsense"])
def test_what_is_no_address(url):
    with pytest.raises(DescriptionError, match="no server address"):
        DescriptionClient("m", base_url=url)


def test_openai_itself_needs_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(DescriptionError, match="OPENAI_API_KEY"):
        DescriptionClient("m")
    client = DescriptionClient("m", base_url="http://user:word@localhost:1/v1?x=1")
    assert client.server == "http://localhost:1/v1"


def test_the_key_is_in_no_log(server, caplog):
    caplog.set_level(logging.DEBUG)
    server.plan.extend([status(500, f"key {KEY}"), cut, says("no")])
    run(server, ("clap", "spatial", 2))
    assert caplog.records, "something was logged at this level"
    assert KEY not in caplog.text


def test_back_off_doubles_up_to_a_bound():
    delays = [Retry().delay(attempt, 0.5) for attempt in range(1, 12)]
    for attempt, delay in enumerate(delays):
        longest = min(0.5 * 2**attempt, 30)
        assert longest / 2 <= delay <= longest
    assert Retry(after_s=7).delay(3, 0.5) == 7
