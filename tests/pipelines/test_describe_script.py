"""pipelines/describe.py as a user runs it: with a server, with published files, and with mistakes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from llm_server import LlmServer, sentences, slow, status

from llm_descriptions.failures import ServerError
from llm_descriptions.store import DescriptionStore, Key
from pipelines.describe import main

SCRIPT = Path(__file__).parents[2] / "pipelines" / "describe.py"
KEY = "sk-very-secret-0123456789"
ACTIONS = ["brush_hair", "clap", "fall", "run"]


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(ACTIONS)))
    return path


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LlmServer() as server:
        yield server


def ask(csv, server, *more):
    out = csv.parent / "out"
    return main(["--labels", str(csv), "--out", str(out), "--base-url", server.url, "--model", "toy-chat", *more])


def script(*arguments, **environment):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"} | environment,
        timeout=120,
    )


def labels_in(store):
    keys = store.keys()
    assert all(key == Key(key.label, "spatial", "msta-v1", "toy-chat", 2) for key in keys)
    return [key.label for key in keys]


@pytest.mark.ray
def test_asks_once_and_only_once(csv, server, ray_session, capfd):
    assert ask(csv, server, "--export", "own") == 0
    out, store = csv.parent / "out", DescriptionStore(csv.parent / "out" / "descriptions.sqlite")
    said = capfd.readouterr().out
    assert "4 classes, 8 descriptions of n=2: 0 from the store, 8 asked, 0 failed; 8 calls, 88 + 56 tokens" in said
    assert "spatial, 'brush_hair': A video about phrase 0 of brush hair." in said
    assert "temporal, 'brush_hair': A video of brush hair generally involves" in said
    assert len(server.asked) == 8
    assert {request.authorization for request in server.asked} == {f"Bearer {KEY}"}
    bank = store.bank(ACTIONS, ["spatial", "temporal"])
    assert bank["spatial"]["run"] == ("A video about phrase 0 of run.", "A video about phrase 1 of run.")
    exported = json.loads((out / "2_t_description_own.json").read_text())
    assert exported["3"] == list(bank["temporal"]["run"])

    server.requests.clear()
    assert ask(csv, server) == 0
    assert server.requests == []
    assert "8 from the store, 0 asked, 0 failed; 0 calls" in capfd.readouterr().out
    for path in out.iterdir():
        assert KEY.encode() not in path.read_bytes()


@pytest.mark.ray
def test_one_failing_class_does_not_end_the_rest(csv, server, ray_session, capfd):
    server.rule = lambda request: sentences("same", "same") if "fall" in request.question else None
    assert ask(csv, server, "--kinds", "spatial") == 1
    said = capfd.readouterr()
    assert "0 from the store, 3 asked, 1 failed; 6 calls" in said.out
    assert "failed: 'fall' (spatial): toy-chat at http://127.0.0.1" in said.err
    assert "run the same command again" in said.err
    store = DescriptionStore(csv.parent / "out" / "descriptions.sqlite")
    assert labels_in(store) == ["brush_hair", "clap", "run"]

    server.rule = lambda request: None
    server.requests.clear()
    assert ask(csv, server, "--kinds", "spatial") == 0
    assert [request.question.rpartition(" ")[2] for request in server.asked] == ["fall"]


@pytest.mark.ray
def test_answers_before_the_end_are_kept(csv, server, ray_session):
    def rule(request):
        return status(401, f"bad key {KEY}") if "fall" in request.question else None

    server.rule = rule
    with pytest.raises(ServerError, match="refuses the key") as caught:
        ask(csv, server, "--kinds", "spatial", "--concurrency", "1")
    assert KEY not in str(caught.value)
    store = DescriptionStore(csv.parent / "out" / "descriptions.sqlite")
    assert labels_in(store) == ["brush_hair", "clap"]
    assert len(server.asked) == 3, "no question after the end"


@pytest.mark.ray
def test_concurrency_is_bounded_and_kept_busy(csv, server, ray_session):
    csv.write_text("id,name\n" + "".join(f"{i},class {i}\n" for i in range(60)))
    server.rule = lambda request: slow(0.2)
    assert ask(csv, server, "--kinds", "spatial", "--concurrency", "6") == 0
    assert server.most_open == 6
    first, last = server.asked[0].at, server.asked[-1].at
    # 60 calls, 6 at a time, 0.2 s each: the last starts after 1.8 s if no slot ever idles.
    assert last - first < 1.8 * 1.5


def test_no_server_is_one_error_quickly(csv):
    start = time.monotonic()
    result = script("--labels", csv, "--out", csv.parent / "o", "--model", "m", "--base-url", "http://127.0.0.1:9/v1")
    assert result.returncode == 2
    assert result.stderr.startswith("error: cannot reach http://127.0.0.1:9/v1 (model 'm')")
    assert result.stderr.count("\n") == 1
    assert not (csv.parent / "o").exists()
    assert time.monotonic() - start < 15


@pytest.mark.ray
def test_a_run_of_its_own_leaves_the_key_nowhere(csv, server, tmp_path):
    """The whole script with a Ray of its own: neither its output nor Ray's session folder shows the key."""
    server.plan.append(status(500, f"odd, {KEY}"))
    session = Path(tempfile.mkdtemp(prefix="ray"))  # a short path: those of Ray's sockets are bounded
    arguments = ["--labels", csv, "--out", tmp_path / "out", "--model", "toy-chat", "--base-url", server.url]
    result = script(*arguments, OPENAI_API_KEY=KEY, OPENAI_LOG="debug", RAY_TMPDIR=str(session))
    try:
        assert result.returncode == 0, result.stderr
        assert "8 asked, 0 failed; 9 calls" in result.stdout
        assert KEY not in result.stdout + result.stderr
        files = [path for path in session.rglob("*") if path.is_file() and not path.is_symlink()]
        assert files, "Ray left its logs where they are looked for"
        assert [path for path in files if KEY.encode() in path.read_bytes()] == []
        assert KEY.encode() not in (tmp_path / "out" / "descriptions.sqlite").read_bytes()
    finally:
        shutil.rmtree(session, ignore_errors=True)


def test_published_files(shared_data, tmp_path, capfd):
    csv = shared_data / "labels" / "kinetics_400_base_labels.csv"
    arguments = ["--labels", str(csv), "--out", str(tmp_path), "--n", "8", "--from-published"]
    assert main([*arguments, str(shared_data / "descriptions")]) == 0
    said = capfd.readouterr().out
    assert "8_s_description_k400.json: 200 classes (spatial, n=8), 200 new" in said
    assert "note: " in said
    assert "'kicking field goal' has 1" in said
    store = DescriptionStore(tmp_path / "descriptions.sqlite")
    assert len(store.keys()) == 400
    k = store.keys()[0]
    assert (k.prompt_id, k.model) == ("published", "etl4video/k400")
    assert store.provenance(k).origin == "8_s_description_k400.json"
    assert main([*arguments, str(shared_data / "descriptions" / "8_s_description_k400.json")]) == 0
    assert "200 classes (spatial, n=8), 0 new" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--labels", "absent.csv", "--model", "m"], "error: cannot read the class list absent.csv"),
        (["--from-published", "toy-nowhere"], "error: 'toy-nowhere' is no file, folder or toy world"),
        (["--model", "m"], "error: https://api.openai.com/v1 needs a key"),
        (["--model", "m", "--base-url", "localhost:1"], "error: 'localhost:1' is no server address"),
        (["--model", "m", "--from-published", "x"], "not allowed with argument"),
        ([], "one of the arguments --model --from-published is required"),
        (["--model", "m", "--n", "0"], "must be at least 1"),
        (["--model", "m", "--kinds", "object"], "invalid choice: 'object'"),
    ],
)
def test_mistakes(csv, change, message):
    result = script("--labels", csv, "--out", csv.parent / "o", *change, OPENAI_API_KEY="", OPENAI_BASE_URL="")
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (csv.parent / "o").exists()


def test_help_is_quick():
    start = time.monotonic()
    result = script("--help")
    assert result.returncode == 0
    assert "--from-published" in result.stdout
    assert time.monotonic() - start < 2
