"""Damaged description stores, language-model replies and label lists: a right value, or one line."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llm_descriptions.answer import InvalidAnswerError
from llm_descriptions.errors import DescriptionError
from llm_descriptions.labels import read_labels
from llm_descriptions.prompts import MSTA_V1, Question
from llm_descriptions.reply import UnreadableError, parse_reply
from llm_descriptions.store import DescriptionStore, Key, Provenance
from pipelines.videos import list_files
from tests.fuzz.damage import changed, damaged, deadline, seeded
from vlmodels.errors import UserError

FOLDER = Path(tempfile.mkdtemp(prefix="vidadapt-fuzz-"))
KEYS = [Key(label, kind, "msta-v1", "m", 2) for label in ("clap", "wave") for kind in ("spatial", "temporal")]


def _store() -> bytes:
    store = DescriptionStore(FOLDER / "whole.sqlite")
    for key in KEYS:
        store.put(key, [f"A video about {key.label} {i}." for i in range(2)], Provenance(host="h", calls=1))
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return store.path.read_bytes()


STORE = _store()


@seeded
@given(damaged(STORE))
def test_description_stores(content):
    store = DescriptionStore(FOLDER / "case.sqlite")
    for end in ("", "-wal", "-shm", "-journal"):
        store.path.with_name(store.path.name + end).unlink(missing_ok=True)
    store.path.write_bytes(content)
    uses = (store.keys, lambda: store.bank(["clap", "wave"], ["spatial"]), lambda: store.get(KEYS[0]),
            lambda: store.put(KEYS[1], ["a", "b"], Provenance()))  # fmt: skip
    for use in uses:
        try:
            with deadline():
                found = use()
        except DescriptionError as error:
            assert "\n" not in str(error)
        else:
            texts = found if isinstance(found, tuple) else ()
            assert all(isinstance(text, str) and text for text in texts)


REPLY = {
    "model": "toy",
    "usage": {"prompt_tokens": 11, "completion_tokens": 7},
    "choices": [
        {"finish_reason": "stop", "message": {"content": '{"sentences": ["one hand", "two hands"]}', "refusal": None}}
    ],
}


@seeded
@given(st.one_of(changed(REPLY).map(lambda plain: json.dumps(plain).encode()), damaged(json.dumps(REPLY).encode())))
def test_replies(body):
    question = Question("clap", "spatial", 2)
    try:
        with deadline():
            reply = parse_reply(body, "application/json")
            texts = reply.sentences(MSTA_V1, question)
    except (UnreadableError, InvalidAnswerError) as error:
        assert len(str(error)) < 6000
    else:
        assert len(texts) == 2
        assert all(count is None or 0 <= count <= 10**9 for count in reply.tokens)
        json.dumps(texts, ensure_ascii=False).encode()


LISTS = {"csv": b"id,name\n0,clap\n1,wave a hand\n2,\xc3\xa4\n", "txt": b"clap/v1.mp4 0\nwave/v 2.mp4 1\n"}


@seeded
@given(st.sampled_from(sorted(LISTS)), st.data())
def test_lists(kind, data):
    path = FOLDER / f"list.{kind}"
    path.write_bytes(data.draw(damaged(LISTS[kind])))
    for read in (read_labels, list_files.read_labels, list_files.read_list):
        try:
            with deadline():
                read(path)
        except (DescriptionError, UserError) as error:
            assert str(error)
