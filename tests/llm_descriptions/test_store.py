"""The store keeps complete answers, once, from any number of writers; a bank has one source."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_descriptions.budget import AverageCost, Estimate, estimate
from llm_descriptions.errors import DescriptionError
from llm_descriptions.prompts import MSTA_V1, Question
from llm_descriptions.store import DescriptionStore, Key, Provenance

SERVER = Provenance("", "localhost:1", "m-0613", prompt_tokens=3, completion_tokens=4, calls=2, seconds=1.5)
FILE = Provenance(origin="2_s_description_x.json")


def key(label="clap", kind="spatial", prompt_id="msta-v1", model="m", n=2) -> Key:
    return Key(label, kind, prompt_id, model, n)


@pytest.fixture
def store(tmp_path) -> DescriptionStore:
    return DescriptionStore(tmp_path / "new" / "descriptions.sqlite")


def fill(store, labels, kinds=("spatial",), provenance=SERVER, **parts):
    for kind in kinds:
        for label in labels:
            k = key(label, kind, **parts)
            store.put(k, [f"{label} {kind} {k.model} {i}" for i in range(k.n)], provenance)


def test_stored_texts_are_read_back_from_one_file(store):
    assert store.get(key()) is None
    assert not store.path.exists(), "reading creates no file"
    assert store.put(key(), ["plié", "b"], SERVER) == ("plié", "b")
    assert store.get(key()) == ("plié", "b")
    assert store.provenance(key()) == SERVER
    assert store.keys() == [key()]
    assert [path.name for path in store.path.parent.iterdir()] == ["descriptions.sqlite"]
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_first_texts_of_a_key_stay(store):
    store.put(key(), ["a", "b"], SERVER)
    assert store.put(key(), ["a", "b"], SERVER) == ("a", "b")
    assert store.put(key(), ["c", "d"], SERVER) == ("a", "b")
    with pytest.raises(DescriptionError, match=r"already has other texts than 2_s.*clap.*--out"):
        store.put_all({key("run"): ["e", "f"], key(): ["c", "d"]}, FILE)
    assert store.get(key()) == ("a", "b")
    assert store.get(key("run")) is None, "all or none"


def test_other_processes_see_each_answer_of_a_store_that_is_kept_open(store):
    with store.keep_open():
        assert store.keys() == []
        store.put(key(), ["a", "b"], SERVER)
        assert (store.path.parent / "descriptions.sqlite-wal").exists(), "SQLite has not cleaned up yet"
        with sqlite3.connect(store.path) as other:
            assert other.execute("SELECT label FROM description").fetchall() == [("clap",)]
        other.close()
    assert [path.name for path in store.path.parent.iterdir()] == ["descriptions.sqlite"]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([], "non-empty"),
        (["a"], "2 strings"),
        (["a", "b", "c"], "2 strings"),
        (["a", " "], "non-empty"),
        (["a", None], "non-empty"),
        (["a b", "A  b"], "distinct"),
    ],
)
def test_an_incomplete_answer_is_not_stored(store, texts, reason):
    with pytest.raises(DescriptionError, match=reason):
        store.put_all({key("ok"): ["a", "b"], key(): texts}, SERVER)
    assert store.keys() == []


def test_published_texts_may_differ_in_number(store):
    store.put(key(n=8), ["all eight glued"], FILE)
    store.put(key(), ["same", "same"], FILE)
    assert store.get(key(n=8)) == ("all eight glued",)
    with pytest.raises(DescriptionError, match="non-empty"):
        store.put(key("x"), ["same", ""], FILE)


def _write(path: str, first: int, barrier) -> None:
    store = DescriptionStore(path)
    barrier.wait(20)
    for i in range(first, first + 60):
        store.put(key(f"class {i}"), [f"{os.getpid()} a", f"{os.getpid()} b"], SERVER)


def test_several_processes_write_at_the_same_time(store):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    writers = [context.Process(target=_write, args=(str(store.path), i * 30, barrier)) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]

    keys = store.keys()
    assert len(keys) == 120
    for k in keys:
        first, second = store.get(k)
        assert first.split()[0] == second.split()[0], "texts of two writers in one entry"


def test_a_bank_refuses_with_all_missing_labels(store):
    fill(store, ["clap", "run"])
    fill(store, ["clap"], kinds=["temporal"])
    with pytest.raises(DescriptionError) as caught:
        store.bank(["clap", "jump", "sit", "run"], ["spatial", "temporal"])
    message = str(caught.value)
    assert "spatial: 2 of 4 classes: 'jump', 'sit'" in message
    assert "temporal: 3 of 4 classes: 'jump', 'sit', 'run'" in message
    assert "python pipelines/describe.py --labels CSV" in message
    assert str(store.path) in message


def test_messages_suggest_another_spelling_of_a_missing_label(store):
    with pytest.raises(DescriptionError, match="lacks descriptions with n=4: spatial: none at all for 'clap'"):
        store.bank(["clap"], ["spatial"], n=4)
    fill(store, ["brush_hair"])
    with pytest.raises(DescriptionError, match=r"'brush hair' \(there is 'brush_hair'\)"):
        store.bank(["brush hair"], ["spatial"])
    with pytest.raises(DescriptionError) as caught:
        store.bank(["brush_hair", "brush_hairs"], ["spatial"])
    assert "'brush_hairs'." in str(caught.value), "a wanted name is not suggested for another"


def test_a_bank_never_mixes_sources(store):
    fill(store, ["clap", "run"])
    fill(store, ["run", "sit"], model="other")
    with pytest.raises(DescriptionError, match="1 of 3 classes"):
        store.bank(["clap", "run", "sit"], ["spatial"])
    bank = store.bank(["run", "clap"], ["spatial"])
    assert list(bank["spatial"]) == ["run", "clap"], "order of the labels"
    assert bank["spatial"]["run"] == ("run spatial m 0", "run spatial m 1")
    with pytest.raises(DescriptionError, match=r"never mixed.*model=m, n=2 \| .*model=other, n=2.*Choose one"):
        store.bank(["run"], ["spatial"])
    assert store.bank(["run"], ["spatial"], model="other")["spatial"]["run"][0] == "run spatial other 0"
    assert store.sources(["run"], ["spatial"], model="m")["spatial"].model == "m"


def test_a_bank_is_chosen_by_n_and_prompt(store):
    fill(store, ["run"], n=2)
    fill(store, ["run"], n=4)
    fill(store, ["run"], n=4, prompt_id="msta-v2")
    assert len(store.bank(["run"], ["spatial"], n=4, prompt_id="msta-v2")["spatial"]["run"]) == 4
    assert len(store.bank(["run"], ["spatial"], n=2)["spatial"]["run"]) == 2
    with pytest.raises(DescriptionError, match="unknown kind"):
        store.bank(["run"], ["object"])


texts = st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=2, unique_by=str.casefold)


@settings(max_examples=15, deadline=None)
@given(data=st.dictionaries(st.sampled_from("abcde"), texts, min_size=2))
def test_a_digest_depends_on_the_content_only(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("digest")
    labels = list(data)
    first, second = DescriptionStore(folder / "1"), DescriptionStore(folder / "2")
    try:
        first.put_all({key(label): data[label] for label in labels}, SERVER)
    except DescriptionError:
        return  # the texts differ in white space only
    second.put_all({key(label, model="z"): data[label] for label in reversed(labels)}, FILE)
    digest = first.digest(labels, ["spatial"])
    assert second.digest(labels[::-1], ["spatial"]) == digest
    assert first.digest(labels[1:], ["spatial"]) != digest
    second.put_all({key(label, model="y"): [*data[label][:1], "other"] for label in labels}, FILE)
    assert second.digest(labels, ["spatial"], model="y") != digest or data[labels[0]][1] == "other"


def test_a_file_that_is_not_a_store_is_refused(tmp_path, store):
    path = tmp_path / "x.sqlite"
    path.write_text("<html>not a database, but long enough to be read as one</html>" * 20)
    for act in (lambda s: s.keys(), lambda s: s.put(key(), ["a", "b"], SERVER)):
        with pytest.raises(DescriptionError, match=r"x\.sqlite.*not a database"):
            act(DescriptionStore(path))
    with sqlite3.connect(tmp_path / "y.sqlite") as connection:
        connection.execute("CREATE TABLE other (a)")
    with pytest.raises(DescriptionError, match="not a description store of format 1 or 2"):
        DescriptionStore(tmp_path / "y.sqlite").put(key(), ["a", "b"], SERVER)
    with pytest.raises(DescriptionError, match=r"cannot write.*--out"):
        DescriptionStore(path / "below" / "s.sqlite").put(key(), ["a", "b"], SERVER)


ENDLESS = "WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up) SELECT n AS label, n AS kind FROM up"
FOREIGN = {
    "no table": f"CREATE VIEW description AS {ENDLESS};",
    "a trigger": "{V1} CREATE TRIGGER t BEFORE INSERT ON description BEGIN SELECT 1; END;",
    "no column": "CREATE TABLE description (label TEXT, n INTEGER);",
}


@pytest.mark.parametrize("found", FOREIGN)
def test_a_file_of_a_foreign_schema_is_refused(store, found):
    """Also one whose view has no end."""
    store.path.parent.mkdir()
    with sqlite3.connect(store.path) as connection:
        connection.executescript(FOREIGN[found].replace("{V1}", V1) + "PRAGMA user_version = 1;")
    connection.close()
    acts = (lambda s: s.keys(), lambda s: s.get(key()), lambda s: s.put(key(), ["a", "b"], SERVER))
    for act in acts:
        with pytest.raises(DescriptionError, match=rf"is not a description store \(it.* {found}.*; move it away"):
            act(store)


@pytest.mark.parametrize("content", ["", "{", '"a"', "null", "{}", "[]", "[1]", '[""]', "[" * 100_000, b"\xff\xfe", 7])
def test_texts_that_are_damaged_are_named(store, content):
    fill(store, ["clap"])
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE description SET texts = ?", (content,))
    connection.close()
    for act in (
        lambda s: s.get(key()),
        lambda s: s.bank(["clap"], ["spatial"]),
        lambda s: s.digest(["clap"], ["spatial"]),
    ):
        with pytest.raises(
            DescriptionError, match=r"descriptions\.sqlite is damaged: the texts of 'clap'.*; move it away"
        ):
            act(store)


@pytest.mark.parametrize(("column", "value"), [("n", "many"), ("model", b"\x00"), ("label", b"clap")])
def test_a_key_that_is_damaged_is_named(store, column, value):
    fill(store, ["clap", "run"])
    with sqlite3.connect(store.path) as connection:
        connection.execute(f"UPDATE description SET {column} = ? WHERE label = 'run'", (value,))
    connection.close()
    with pytest.raises(DescriptionError, match=r"descriptions\.sqlite is damaged: a row has the key"):
        store.keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("texts = '[\"one\"]'", "'jump' has 1 text where n is 2"),
        ("""texts = '["a", "b", "c"]'""", "'jump' has 3 texts where n is 2"),
        ("n = -1", "'jump' has the n -1, which is below 1"),
        ("n = 0", "'jump' has the n 0, which is below 1"),
        ("kind = 'smell'", "'jump' has descriptions of the unknown kind 'smell'"),
        ("label = ' '", "a row has a blank class name"),
    ],
)
def test_a_row_that_contradicts_itself_is_named(store, change, said):
    fill(store, ["jump"])
    with sqlite3.connect(store.path) as connection:
        connection.execute(f"UPDATE description SET {change}")
    connection.close()
    with pytest.raises(DescriptionError, match=rf"descriptions\.sqlite is damaged: {said}; move it away"):
        store.bank(["jump"], ["spatial"])


def test_published_texts_may_be_more_or_fewer_than_n(store):
    store.put(key("jump"), ["one"], FILE)
    assert store.get(key("jump")) == ("one",)
    assert store.bank(["jump"], ["spatial"]) == {"spatial": {"jump": ("one",)}}


def test_what_is_no_file_is_no_store(store):
    store.path.mkdir(parents=True)
    loop = DescriptionStore(store.path.with_name("loop.sqlite"))
    loop.path.symlink_to(loop.path.name)
    for place, said in ((store, r"descriptions\.sqlite is no file"), (loop, r"loop\.sqlite: .*symbolic link")):
        for act in (lambda s: s.keys(), lambda s: s.get(key()), lambda s: s.put(key(), ["a", "b"], SERVER)):
            with pytest.raises(DescriptionError, match=said):
                act(place)


def test_a_store_in_a_read_only_folder_can_be_read(store, monkeypatch):
    fill(store, ["run"])
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != store.path.parent)
    assert store.keys() == [key("run")]


V1 = """
CREATE TABLE description (
    label TEXT NOT NULL, kind TEXT NOT NULL, prompt_id TEXT NOT NULL, model TEXT NOT NULL, n INTEGER NOT NULL,
    texts TEXT NOT NULL,
    origin TEXT NOT NULL, created TEXT NOT NULL, host TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (label, kind, prompt_id, model, n)
) WITHOUT ROWID;
INSERT INTO description VALUES
    ('clap', 'spatial', 'msta-v1', 'm', 2, '["a", "b"]', '', '2026-01-01T00:00:00+00:00', 'localhost:1', 3, 4);
PRAGMA user_version = 1;
"""


def test_a_store_of_format_1_is_read_and_extended(store):
    store.path.parent.mkdir()
    with sqlite3.connect(store.path) as connection:
        connection.executescript(V1)
    connection.close()
    old = Provenance("", "localhost:1", "", 3, 4, created="2026-01-01T00:00:00+00:00")
    assert store.get(key()) == ("a", "b")
    assert store.provenance(key()) == old
    assert average_cost(store) is None
    fill(store, ["run"])
    assert store.provenance(key()) == old
    assert store.provenance(key("run")) == SERVER
    assert average_cost(store) == AverageCost(1, 2.0, 3.0, 4.0, 1.5), "format 1 has no calls and seconds"


def average_cost(store, **other):
    return store.average_cost(**{"prompt_id": "msta-v1", "model": "m", "host": "localhost:1", "n": 2} | other)


def test_the_average_cost_is_of_equal_questions_only(store):
    assert average_cost(store) is None
    fill(store, ["run", "sit"])
    store.put(key("fall"), ["a", "b"], replace(SERVER, calls=5, seconds=4.5, prompt_tokens=9))
    assert average_cost(store) == AverageCost(3, 3.0, 5.0, 4.0, 2.5)
    for name, value in {"prompt_id": "x", "model": "x", "host": "x", "n": 4}.items():
        assert average_cost(store, **{name: value}) is None


def test_estimates_use_stored_answers_or_else_the_length_of_questions(store):
    questions = [Question(f"class {i}", kind, 2) for kind in ("spatial", "temporal") for i in range(10)]
    by_rule = estimate(questions, MSTA_V1, lambda n: average_cost(store, n=n), 4)
    assert (by_rule.calls, by_rule.completion_tokens, by_rule.seconds, by_rule.measured) == (20, 1000, None, 0)
    assert 20 * 80 < by_rule.prompt_tokens < 20 * 200
    assert by_rule.cost(1.0, 2.0) == pytest.approx((by_rule.prompt_tokens + 2000) / 1e6)
    fill(store, ["run"])
    measured = estimate(questions, MSTA_V1, lambda n: average_cost(store, n=n), 4)
    assert measured == Estimate(40.0, 60.0, 80.0, 20 * 1.5 / 4, 1)
    assert estimate(questions[:2], MSTA_V1, lambda n: average_cost(store), 4).seconds == 1.5, (
        "both questions are open at the same time"
    )
    assert estimate([], MSTA_V1, lambda n: None, 4) == Estimate(0, 0, 0, 0, 0)


def make(path, *commands):
    with closing(sqlite3.connect(path)) as connection:
        for command in commands:
            connection.execute(command)
        connection.commit()


ENDLESS = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT"
VIEW = (
    f"CREATE VIEW description AS {ENDLESS} 'a' label, 'spatial' kind, 'p' prompt_id, 'm' model, i n, '[]' texts FROM r"
)


@pytest.mark.parametrize(
    "commands",
    [
        [VIEW],
        ["CREATE TABLE other (x)"],
        ["CREATE TABLE description (label, kind)"],
        ["CREATE TABLE description (label, kind, prompt_id, model, n, texts)", "CREATE TABLE more (x)"],
        ["CREATE TABLE description (label, kind, prompt_id, model, n, texts)",
         f"CREATE TRIGGER t BEFORE INSERT ON description BEGIN SELECT count(*) FROM ({ENDLESS} i FROM r); END"],
    ],
)  # fmt: skip
def test_a_foreign_schema_is_one_line_and_no_hang(tmp_path, commands):
    path = tmp_path / "descriptions.sqlite"
    make(path, *commands, "PRAGMA user_version = 2")
    store, key = DescriptionStore(path), Key("clap", "spatial", "p", "m", 2)
    for use in (store.keys, lambda: store.get(key), lambda: store.bank(["clap"], ["spatial"]),
                lambda: store.put(key, ["a", "b"], Provenance())):  # fmt: skip
        with pytest.raises(DescriptionError, match=r"descriptions\.sqlite is not a description store"):
            use()
