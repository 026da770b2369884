"""The client against a server that misbehaves."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from llm_descriptions.client import DescriptionClient
from llm_descriptions.errors import DescriptionError
from llm_descriptions.failures import AnswerError, LongWaitError, ServerError
from tests.helpers.llm_server import LlmServer, completion, cut, good, run, says, sends, sentences, slow, status

KEY = "sk-very-secret-0123456789"
GOOD = ("A video about phrase 0 of clap.", "A video about phrase 1 of clap.")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LlmServer() as server:
        yield server


def test_good_answer(server):
    (described,), usage = run(server, ("clap", "spatial", 2))
    assert described.texts == GOOD
    provenance = described.provenance
    assert (provenance.prompt_tokens, provenance.completion_tokens, provenance.origin) == (11, 7, "")
    assert provenance.host == server.url.split("/")[2]
    assert datetime.fromisoformat(provenance.created).tzinfo is not None
    assert (provenance.served_model, provenance.calls) == ("toy-chat", 1)
    assert 0 < provenance.seconds < 5
    assert usage.calls == len(server.asked) == 1
    request = server.asked[0]
    assert request.authorization == f"Bearer {KEY}"
    assert [message["role"] for message in request.body["messages"]] == ["system", "user"]
    assert request.question == "Please give me 2 sentences describing the visual appearance of the action clap"


@pytest.mark.parametrize("step", [status(429), status(500), status(503), status(408), cut])
def test_temporary_failures_are_retried(server, step):
    server.plan.extend([step, step])
    (described,), usage = run(server, ("clap", "spatial", 2))
    assert described.texts == GOOD
    assert usage.calls == 3


def test_a_slow_answer_is_requested_again(server):
    server.plan.append(slow(0.5))
    (described,), usage = run(server, ("clap", "spatial", 2), timeout_s=0.1)
    assert described.texts == GOOD
    assert usage.calls == 2


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_delays_all_calls(server, as_date):
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if as_date else "0.6"
    server.plan.append(status(429, Retry_After=when))
    start = time.monotonic()
    answers, _ = run(server, *[(f"class {i}", "spatial", 2) for i in range(3)], concurrency=1)
    assert all(len(answer.texts) == 2 for answer in answers)
    first, second = server.asked[0], server.asked[1]
    assert second.at - first.at >= 0.55
    assert time.monotonic() - start < 5


def test_a_wait_for_one_call_delays_calls_already_queued(server):
    server.plan.extend([status(429, Retry_After="0.8"), slow(0.2)])
    run(server, *[(f"class {i}", "spatial", 2) for i in range(4)], concurrency=2)
    times = sorted(request.at for request in server.asked)
    assert len(times) == 5
    assert times[2] - times[0] >= 0.75


@pytest.mark.parametrize("value", ["soon", "-3", "Wed, 99 Foo 2026", "nan"])
def test_an_invalid_retry_after_is_ignored(server, value):
    server.plan.append(status(503, Retry_After=value))
    (described,), usage = run(server, ("clap", "spatial", 2))
    assert (described.texts, usage.calls) == (GOOD, 2)
    assert described.provenance.calls == 2


def test_a_long_retry_after_ends_all_calls(server):
    server.rule = lambda request: good if "class 0" in request.question else status(429, Retry_After="7200")
    first, *others = run(server, *[(f"class {i}", "spatial", 2) for i in range(40)], concurrency=2)[0]
    assert len(first.texts) == 2
    assert {type(other) for other in others} == {LongWaitError}
    assert {str(other) for other in others} == {f"{server.url} asks to wait 7200 s"}
    assert len(server.asked) <= 3, "the other questions are not sent"


def test_a_question_that_always_fails_is_an_error_of_its_class(server):
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
        sentences("I cannot describe this", "I cannot describe that"),
        sentences("双手拍在一起", "手掌相碰"),
        sentences("die Hand auf dem Tisch", "eine Person mit Hut"),
        sentences("one", "word " * 31),
        completion({"content": None, "refusal": "I can't help with that."}),
        completion({"content": ""}, finish_reason="content_filter"),
        completion({"content": '{"sentences": ["a", '}, finish_reason="length"),
        completion({"content": [{"type": "thinking", "thinking": '{"sentences": ["a", "b"]}'}]}),
    ],
)
def test_the_model_gets_its_invalid_answer_back_with_the_reason(server, bad):
    server.plan.extend([bad, bad])
    (described,), usage = run(server, ("clap", "spatial", 2))
    assert described.texts == GOOD
    assert usage.calls == 3
    assert described.provenance.prompt_tokens == 33, "invalid answers cost tokens too"
    last = server.asked[-1].body["messages"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "user"]
    assert "not usable: the answer" in last[-1]["content"]


def test_invalid_answers_end_after_three(server):
    server.rule = lambda request: sentences("one")
    with pytest.raises(AnswerError, match=r"'clap' \(spatial\): toy-chat at http.*3 unusable.*1 strings"):
        run(server, ("clap", "spatial", 2))
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (says("I'm sorry, but I can't help with that."), r"the answer is a refusal: 'I'm sorry, but"),
        (completion({"content": None, "refusal": "Not that."}), "the answer is a refusal: 'Not that.'"),
        (completion({"content": ""}, finish_reason="content_filter"), "withheld by the server's content filter"),
        (completion({"content": "{"}, finish_reason="length"), "cut off at the server's limit of tokens"),
        (sentences("双手拍在一起", "b"), "string 1 is not in English"),
    ],
)
def test_the_message_has_the_servers_reason(server, step, reason):
    server.rule = lambda request: step
    with pytest.raises(AnswerError, match=f"'clap'.*3 unusable answers; the last: .*{reason}"):
        run(server, ("clap", "spatial", 2))


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "thinking", "thinking": "{}"}, {"type": "text", "text": '{"sentences": ["a", "b"]}'}]},
        {"content": '{"sentences": ["a", "b"]}', "reasoning_content": '{"sentences": ["no", "no"]}'},
        {"content": '<think>hm {"sentences": []}</think>{"sentences": ["a", "b"]}', "reasoning": None},
        {"content": 'Here:\n```json\n{"sentences": ["a", "b"]}\n```', "refusal": None},
    ],
)
def test_replies_of_compatible_servers_are_understood(server, message):
    server.plan.append(completion(message, usage=None, model=None))
    (described,), usage = run(server, ("clap", "spatial", 2))
    assert described.texts == ("A video about a.", "A video about b.")
    assert (usage.calls, described.provenance.served_model) == (1, "")
    assert usage.prompt_tokens > 50, "estimated if the server does not count"
    assert usage.completion_tokens > 20


@pytest.mark.parametrize(
    "body",
    ['{"choices": [', "null", "[]", '{"choices": null}', '{"choices": ["x"]}', '{"error": {"message": "overloaded"}}'],
)
def test_replies_that_are_not_completions_are_requested_again(server, body):
    server.plan.extend([sends(body), sends(body)])
    (described,), usage = run(server, ("clap", "spatial", 2))
    assert described.texts == GOOD
    assert usage.calls == 3


def test_a_question_with_only_broken_replies_is_an_error_of_its_class(server):
    server.rule = lambda request: sends('{"choices": [') if "fall" in request.question else None
    (fell, clapped), _ = run(server, ("fall", "spatial", 2), ("clap", "spatial", 2))
    assert isinstance(fell, AnswerError)
    assert "in 6 attempts: a reply that is not valid JSON" in str(fell)
    assert clapped.texts == GOOD


def test_a_web_page_is_not_a_server(server):
    server.rule = lambda request: sends("<html>", "text/html")
    with pytest.raises(ServerError, match=r"has no chat completions: a page.*'/v1'"):
        run(server, ("clap", "spatial", 2))


def test_a_model_without_system_messages_gets_one_user_message(server):
    def rule(request):
        refused = any(message["role"] == "system" for message in request.body["messages"])
        return status(400, "System role not supported") if refused else None

    server.rule = rule
    server.plan.append(says("no"))
    (described,), usage = run(server, ("clap", "spatial", 2))
    assert described.texts == GOOD
    assert usage.calls == 3
    last = server.asked[-1].body["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "user"]
    assert "exactly 2 strings" in last[0]["content"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (400, "'response_format' is not supported"),
        (400, "'response_format.type' must be 'json_schema' or 'text'"),
        (422, "body.response_format: extra inputs are not permitted"),
        (501, "json_object is not implemented"),
    ],
)
def test_a_server_without_json_mode_is_asked_without_it(server, code, reason):
    def rule(request):
        return status(code, reason) if "response_format" in request.body else good

    server.rule = rule
    answers, usage = run(server, ("clap", "spatial", 2), ("run", "spatial", 2), concurrency=1)
    assert all(len(answer.texts) == 2 for answer in answers)
    assert usage.calls == 3, "the client remembers the refusal"


def test_concurrency_is_limited_and_used(server):
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
def test_failures_that_no_retry_can_fix_end_all_calls(server, step, reason):
    server.rule = lambda request: step
    answers, usage = run(server, *[(f"class {i}", "spatial", 2) for i in range(5)], concurrency=1)
    assert all(isinstance(answer, ServerError) for answer in answers)
    assert usage.calls == 1
    with pytest.raises(ServerError, match=reason) as caught:
        raise answers[-1]
    assert server.url in str(caught.value)
    assert "toy-chat" in str(caught.value)
    assert KEY not in str(caught.value)


def test_an_unknown_model_is_a_server_error(server):
    with pytest.raises(ServerError, match=r"'gpt-9'.*does not know the model.*--model"):
        run(server, ("clap", "spatial", 2), model="gpt-9")


def test_a_refused_question_is_an_error_of_its_class(server):
    server.rule = lambda request: status(400, "content policy") if "fall" in request.question else None
    (fell, clapped), _ = run(server, ("fall", "spatial", 2), ("clap", "spatial", 2))
    assert isinstance(fell, AnswerError)
    assert "'fall'" in str(fell)
    assert clapped.texts == GOOD


def test_a_403_is_about_the_key_only_before_the_first_answer(server):
    server.rule = lambda request: status(403, "moderation") if "fall" in request.question else None
    clapped, fell, ran = run(server, *[(x, "spatial", 2) for x in ("clap", "fall", "run")], concurrency=1)[0]
    assert isinstance(fell, AnswerError)
    assert "'fall': " in str(fell)
    assert "refused the question: moderation" in str(fell)
    assert clapped.texts == GOOD
    assert len(ran.texts) == 2
    with pytest.raises(ServerError, match="refuses the key"):
        run(server, ("fall", "spatial", 2))


class Nowhere:
    def __init__(self):
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"


def test_an_unreachable_server_is_a_server_error():
    start = time.monotonic()
    with pytest.raises(ServerError, match=r"cannot reach http://127.*'toy-chat'.*--base-url"):
        run(Nowhere(), ("clap", "spatial", 2))

    async def check():
        async with DescriptionClient("toy-chat", base_url=Nowhere().url) as client:
            await client.check()

    with pytest.raises(ServerError, match="cannot reach"):
        asyncio.run(check())
    assert time.monotonic() - start < 5


def test_a_check_asks_no_question(server):
    async def check():
        async with DescriptionClient("toy-chat", base_url=server.url) as client:
            await client.check()

    asyncio.run(check())
    assert server.asked == []


@pytest.mark.parametrize("url", ["localhost:80/v1", "ftp://x/v1", "http://", "nonsense"])
def test_an_invalid_address_is_refused(url):
    with pytest.raises(DescriptionError, match="not a server address"):
        DescriptionClient("m", base_url=url)


def test_openai_needs_a_key_and_other_servers_do_not(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(DescriptionError, match="OPENAI_API_KEY"):
        DescriptionClient("m")
    client = DescriptionClient("m", base_url="http://user:word@localhost:1/v1?x=1")
    assert client.server == "http://localhost:1/v1"


@pytest.mark.parametrize("key", ["sk-a b", "sk-\u2019quoted", "sk-one\nsk-two"])
def test_an_invalid_key_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(DescriptionError, match="OPENAI_API_KEY has") as caught:
        DescriptionClient("m", base_url="http://localhost:1/v1")
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "step",
    [
        status(401, f"bad {KEY}"),
        status(400, f"odd {KEY}"),
        status(500, f"boom {KEY}"),
        status(429, f"wait {KEY}", Retry_After="999"),
        says(f"I'm sorry, but {KEY} may not do that"),
        sends('{"error": {"message": "no ' + KEY + '"}}'),
        sends(KEY, "text/plain"),
        status(404, "x", location=f"/{KEY}"),
    ],
)
def test_no_exception_shows_the_key(server, step):
    server.rule = lambda request: step
    with pytest.raises(DescriptionError) as caught:
        run(server, ("clap", "spatial", 2))
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_key_in_an_answer_is_masked(server):
    server.plan.append(sentences(f"hands and {KEY}", "two hands"))
    (described,), _ = run(server, ("clap", "spatial", 2))
    assert KEY not in str(described)


def test_no_log_message_shows_the_key(server, caplog):
    caplog.set_level(logging.DEBUG)
    server.plan.extend([status(500, f"key {KEY}"), cut, says("no")])
    run(server, ("clap", "spatial", 2))
    assert caplog.records, "something was logged at this level"
    assert KEY not in caplog.text
