"""Replies that would not end, would not fit or are not what they seem; and where a key may travel."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc

import pytest
from pydantic import SecretStr

from llm_descriptions.budget import Budget, BudgetError
from llm_descriptions.client import DescriptionClient
from llm_descriptions.errors import DescriptionError
from llm_descriptions.failures import AnswerError, ServerError
from llm_descriptions.transport import MAX_REPLY, refuse_open_line
from tests.helpers.llm_server import LlmServer, completion, raw, run, says, sends, status, trickle

KEY = "sk-very-secret-0123456789"
TWO = '{"sentences": ["one hand", "two hands"]}'


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LlmServer() as server:
        yield server


def counted(prompt, answer, **head):
    return completion({"content": TWO}, usage={"prompt_tokens": prompt, "completion_tokens": answer}, **head)


BOMB = gzip.compress(bytes(300_000_000), 1)

WRONG = {
    "model is a number": (counted(1, 1, model=7), "model name of the type int"),
    "model is a list": (counted(1, 1, model=["x"]), "model name of the type list"),
    "long model": (counted(1, 1, model="m" * 1000), "model name of 1000 characters"),
    "model of 5 MB": (counted(1, 1, model="m" * 5_000_000), "more than 4 MB"),
    "model of half a character": (counted(1, 1, model="m\ud83d"), "model name that holds the character U+D83D"),
    "model that garbles": (counted(1, 1, model="m\x1b[2J"), "model name that holds the character U+001B"),
    "nested": (sends("[" * 200_000), "not valid JSON"),
    "nested message": (sends('{"choices": [{"message": ' + "[" * 200_000), "not valid JSON"),
    "long number": (sends('{"usage": ' + "9" * 5000 + "}"), "not valid JSON"),
    "list": (sends("[]"), "no JSON object"),
    "text": (sends('"hello"'), "no JSON object"),
    "null": (sends("null"), "no JSON object"),
    "message is text": (sends('{"choices": [{"message": "x"}]}'), "without a message"),
    "choices are text": (sends('{"choices": "x"}'), "without a message"),
    "error is nested": (sends('{"error": {"message": [[[[[[[[]]]]]]]]}}'), "no reason"),
    "bytes that are no text": (raw(b"\xff\xfe\xfd"), "not valid JSON"),
    "bomb": (raw(BOMB, Content_Encoding="gzip"), "more than 4 MB"),
    "stacked bomb": (raw(BOMB, Content_Encoding="gzip, gzip"), "compression"),
    "damaged gzip": (raw(b"no gzip", Content_Encoding="gzip"), "compression is damaged"),
    "other compression": (raw(b"x", Content_Encoding="br"), "compression"),
    "large": (raw(b" " * (MAX_REPLY + 1)), "more than 4 MB"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_one_class_fails_with_a_reason_and_the_others_go_on(server, kind):
    step, reason = WRONG[kind]
    server.rule = lambda request: step if "fall" in request.question else None
    (fell, clapped), usage = run(server, ("fall", "spatial", 2), ("clap", "spatial", 2))
    assert isinstance(fell, AnswerError)
    assert reason in str(fell)
    assert "'fall'" in str(fell)
    assert len(str(fell)) < 500
    assert len(clapped.texts) == 2
    assert 0 < usage.tokens < 5000


@pytest.mark.parametrize("wrong", [10**30, 1e300, -7, -0.5, float("nan"), float("inf"), float("-inf"), True, "7"])
def test_an_answer_with_an_impossible_count_is_kept_and_counted_by_estimate(server, wrong):
    server.plan.append(counted(wrong, wrong))
    (described,), usage = run(server, ("clap", "spatial", 2))
    assert described.texts == ("A video about one hand.", "A video about two hands.")
    assert usage.calls == len(server.asked) == 1
    assert usage.prompt_tokens > 50
    assert 0 < usage.completion_tokens < 500


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_reply_that_is_compressed_unasked_is_read(server, encoding):
    body = {"model": "toy-chat", "choices": [{"message": {"content": TWO}}]}
    import zlib

    pack = gzip.compress if encoding == "gzip" else zlib.compress
    server.plan.append(raw(pack(json.dumps(body).encode()), Content_Encoding=encoding))
    (described,), _ = run(server, ("clap", "spatial", 2))
    assert described.texts == ("A video about one hand.", "A video about two hands.")


def test_a_bomb_takes_little_memory(server):
    server.rule = lambda request: WRONG["bomb"][0]
    tracemalloc.start()
    with pytest.raises(AnswerError, match="more than 4 MB"):
        run(server, ("clap", "spatial", 2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000


def test_a_byte_at_a_time_meets_the_deadline(server):
    server.rule = lambda request: trickle if "fall" in request.question else None
    start = time.monotonic()
    (fell, clapped), _ = run(server, ("fall", "spatial", 2), ("clap", "spatial", 2), timeout_s=0.2, concurrency=1)
    assert isinstance(fell, AnswerError)
    assert "no reply" in str(fell)
    assert len(clapped.texts) == 2
    assert time.monotonic() - start < 8


@pytest.mark.parametrize("escaped", [False, True])
def test_a_key_that_comes_back_is_masked_everywhere(server, escaped):
    echo = "".join(f"\\u{ord(c):04x}" for c in KEY) if escaped else KEY.upper()
    content = '{"sentences": ["one ECHO hand", "two hands"]}'.replace("ECHO", echo)
    server.plan.append(completion({"content": content}, model=f"toy {KEY}"))
    (described,), _ = run(server, ("clap", "spatial", 2))
    assert described.texts[0] == "A video about one *** hand."
    assert described.provenance.served_model == "toy ***"


@pytest.mark.parametrize("content", [f"I am sorry, {KEY}", '{"sentences": ["' + KEY + '"]}', f"{KEY} {{"])
def test_a_key_in_a_reason_is_masked(server, content):
    server.rule = lambda request: says(content)
    with pytest.raises(AnswerError) as caught:
        run(server, ("clap", "spatial", 2))
    assert "secret" not in str(caught.value)


def test_half_a_character_ends_nothing(server):
    server.rule = lambda request: says('{"sentences": ["I am sorry \ud83d"]}') if "fall" in request.question else None
    (fell, clapped), _ = run(server, ("fall", "spatial", 2), ("clap", "spatial", 2))
    assert isinstance(fell, AnswerError)
    str(fell).encode()
    assert len(clapped.texts) == 2


def test_a_server_that_counts_nothing_does_not_empty_the_purse(server):
    server.rule = lambda request: counted(0, 0)
    answers, usage = run(server, *[(f"class {i}", "spatial", 2) for i in range(60)], budget=Budget(tokens=600))
    assert any(isinstance(answer, BudgetError) for answer in answers)
    assert 2 < len(server.asked) < 40
    assert usage.tokens == 0


def test_a_redirect_is_told_and_not_followed(server):
    with LlmServer() as other:
        server.rule = lambda request: status(307, Location=f"{other.url}/chat/completions")
        with pytest.raises(ServerError, match=rf"sends on to {other.url}.*--base-url"):
            run(server, ("clap", "spatial", 2))
        assert other.requests == []


@pytest.mark.parametrize(
    ("url", "key", "refused"),
    [
        ("http://example.com/v1", KEY, True),
        ("http://10.0.0.7:8000/v1", KEY, True),
        ("http://localhost.example.com/v1", KEY, True),
        ("http://127.0.0.1.example.com/v1", KEY, True),
        ("http://[2001:db8::1]:8000/v1", KEY, True),
        ("HTTP://example.com/v1", KEY, True),
        ("https://example.com/v1", KEY, False),
        ("http://localhost:11434/v1", KEY, False),
        ("http://127.3.2.1/v1", KEY, False),
        ("http://[::1]:8000/v1", KEY, False),
        ("http://example.com/v1", "EMPTY", False),
        ("http://example.com/v1", "no-key-needed", False),
    ],
)
def test_a_key_is_not_sent_in_the_clear(url, key, refused):
    if not refused:
        refuse_open_line(url, SecretStr(key), allow_http=False)
        return
    with pytest.raises(DescriptionError, match=r"over http.*https.*--allow-http") as caught:
        DescriptionClient("m", base_url=url, api_key=SecretStr(key))
    assert key not in str(caught.value)
    DescriptionClient("m", base_url=url, api_key=SecretStr(key), allow_http=True)
