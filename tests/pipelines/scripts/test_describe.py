"""``describe.py`` as a user runs it: with a server, with published files, and with mistakes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from llm_descriptions.failures import ServerError
from llm_descriptions.store import DescriptionStore, Key, Provenance
from pipelines.describe import main
from tests.helpers.llm_server import LlmServer, sentences, slow, status
from tests.helpers.scripts import run_script, script_path

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


def command_lines():
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().decode(errors="replace"))
    assert lines
    return "".join(lines)


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
def test_a_spent_budget_stops_and_the_same_command_continues(csv, server, ray_session, capfd):
    assert ask(csv, server, "--max-calls", "3", "--export", "own") == 1
    said = capfd.readouterr()
    assert "8 descriptions of n=2: 0 from the store, 3 asked, 0 failed; 3 calls" in said.out
    assert "stopped: the budget of 3 calls is spent; 5 descriptions were not asked" in said.err
    assert "run the same command again" in said.err
    assert len(server.asked) == 3
    assert not list((csv.parent / "out").glob("*.json")), "half a list is not exported"
    assert ask(csv, server, "--max-tokens", "100") == 1
    assert len(server.asked) == 3
    assert "3 from the store, 0 asked" in capfd.readouterr().out
    assert ask(csv, server, "--max-calls", "5", "--max-tokens", "100000") == 0
    assert len(server.asked) == 8


@pytest.mark.ray
def test_a_server_that_asks_for_hours_leaves_the_rest_unasked(csv, server, ray_session, capfd):
    csv.write_text("id,name\n" + "".join(f"{i},class {i}\n" for i in range(60)))
    server.rule = lambda request: None if len(server.asked) <= 2 else status(429, Retry_After="7200")
    assert ask(csv, server, "--kinds", "spatial", "--concurrency", "2") == 1
    said = capfd.readouterr()
    assert "2 asked, 0 failed" in said.out
    assert said.err.count("\n") == 1
    assert f"stopped: {server.url} asks to wait 7200 s; 58 descriptions were not asked" in said.err
    assert len(server.asked) <= 4


@pytest.mark.ray
def test_every_prompt_set_has_entries_of_its_own(csv, server, ray_session):
    csv.write_text("id,name\n0,ApplyEyeMakeup\n")
    for prompt in ("msta-v1", "msta-v1-split"):
        assert ask(csv, server, "--kinds", "spatial", "--prompt", prompt) == 0
    assert [request.question.partition("the action ")[2] for request in server.asked] == [
        "ApplyEyeMakeup",
        "Apply Eye Makeup",
    ]
    store = DescriptionStore(csv.parent / "out" / "descriptions.sqlite")
    assert {key.prompt_id for key in store.keys()} == {"msta-v1", "msta-v1-split"}  # noqa: SIM118
    provenance = store.provenance(store.keys()[0])
    assert (provenance.served_model, provenance.calls, provenance.prompt_tokens) == ("toy-chat", 1, 11)
    assert provenance.host == server.url.split("/")[2]


def test_dry_run_asks_nothing(csv, server, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(csv, server, "--dry-run", "--price-in", "1", "--price-out", "4", "--max-calls", "2") == 0
    said = capsys.readouterr().out
    assert "4 classes, 8 descriptions of n=2: 0 from the store, 8 to ask" in said
    assert f"server  {server.url}, model toy-chat, prompt msta-v1" in said
    assert "calls   8, 8 at a time" in said
    out = 8 * (10 + 2 * 20)
    asked = int(re.search(rf"tokens  (\d+) in, {out} out \(by rule", said)[1])
    assert f"cost    {(asked + 4 * out) / 1e6:.4g} at 1 in and 4 out" in said
    assert "time    not known" in said
    assert "budget  will probably end the run" in said
    assert server.requests == []
    assert not (csv.parent / "out").exists()


def test_dry_run_knows_what_stored_answers_took(csv, server, capsys):
    store = DescriptionStore(csv.parent / "out" / "descriptions.sqlite")
    took = Provenance("", server.url.split("/")[2], "x", prompt_tokens=100, completion_tokens=50, calls=1, seconds=2.0)
    for kind in ("spatial", "temporal"):
        store.put(Key("clap", kind, "msta-v1", "toy-chat", 2), ["a", "b"], took)
    assert ask(csv, server, "--dry-run", "--concurrency", "3") == 0
    said = capsys.readouterr().out
    assert "2 from the store, 6 to ask" in said
    assert "tokens  600 in, 300 out (as 2 stored answers took)" in said
    assert "cost    not known: give --price-in" in said
    assert "time    4 s" in said
    assert server.requests == []


@pytest.mark.ray
def test_killed_midway_it_continues_and_leaves_the_key_nowhere(csv, server, tmp_path, monkeypatch):
    """The whole script, killed and run again with a Ray of its own, which neither says nor logs the key."""
    csv.write_text("id,name\n" + "".join(f"{i},class {i}\n" for i in range(300)))
    server.rule = lambda request: slow(0.3)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    arguments = ["--labels", csv, "--out", tmp_path / "out", "--model", "toy-chat", "--base-url", server.url]
    arguments += ["--kinds", "spatial", "--concurrency", "2"]
    process = subprocess.Popen(
        [sys.executable, str(script_path("describe")), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while len(server.asked) < 8 and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        process.kill()
        process.wait()
        asked = -1
        while asked < len(server.asked):  # its Ray ends within seconds, and with it the asking
            asked = len(server.asked)
            time.sleep(2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    store = DescriptionStore(tmp_path / "out" / "descriptions.sqlite")
    held = labels_in(store)
    assert 0 < len(held) < 300
    assert all(len(store.get(key)) == 2 for key in store.keys())  # noqa: SIM118
    server.requests.clear()
    seen = []

    def rule(request):
        if len(seen) < 5:
            seen.append(KEY in command_lines())
        return status(500, f"odd, {KEY}") if len(server.asked) == 1 else None

    server.rule = rule
    session = Path(tempfile.mkdtemp(prefix="ray"))  # a short path: those of Ray's sockets are bounded
    result = run_script("describe", *arguments, OPENAI_API_KEY=KEY, OPENAI_LOG="debug", RAY_TMPDIR=str(session))
    try:
        assert result.returncode == 0, result.stderr
        assert f"{len(held)} from the store, {300 - len(held)} asked, 0 failed" in result.stdout
        assert len(server.asked) == 300 - len(held) + 1, "nothing that is stored is asked again"
        assert len(labels_in(store)) == 300
        said = [line for line in result.stderr.splitlines() if "openai._base_client" not in line]
        assert said == [], "Ray has nothing to say"
        assert KEY not in result.stdout + result.stderr
        assert seen == [False] * 5, "the key is on no command line"
        files = [path for path in session.rglob("*") if path.is_file() and not path.is_symlink()]
        assert files, "Ray left its logs where they are looked for"
        assert [path for path in files if KEY.encode() in path.read_bytes()] == []
        assert KEY.encode() not in store.path.read_bytes()
    finally:
        shutil.rmtree(session, ignore_errors=True)


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
    result = run_script(
        "describe", "--labels", csv, "--out", csv.parent / "o", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: cannot reach http://127.0.0.1:9/v1 (model 'm')")
    assert result.stderr.count("\n") == 1
    assert not (csv.parent / "o").exists()
    assert time.monotonic() - start < 15


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
        (["--from-published", "toy-nowhere"], "error: 'toy-nowhere' is not a file, a folder or a toy world"),
        (["--model", "m"], "error: https://api.openai.com/v1 needs a key"),
        (["--model", "m", "--base-url", "localhost:1"], "error: 'localhost:1' is not a server address"),
        (["--model", "m", "--from-published", "x"], "not allowed with argument"),
        ([], "one of the arguments --model --from-published is required"),
        (["--model", "m", "--n", "0"], "must be at least 1"),
        (["--model", "m", "--concurrency", "x"], "argument --concurrency: invalid"),
        (["--model", "m", "--max-calls", "0"], "argument --max-calls: must be at least 1"),
        (["--model", "m", "--price-in", "-1"], "argument --price-in: must be a number, 0 or more"),
        (["--model", "m", "--dry-run", "--price-in", "1"], "give both --price-in and --price-out"),
        (["--model", "m", "--prompt", "mine"], "invalid choice: 'mine' (choose from"),
        (["--report", "--export", "x"], "--export goes with --model or --from-published"),
        (["--report"], "lacks descriptions: spatial: none at all for 'brush_hair'"),
        (["--model", "m", "--kinds", "object"], "invalid choice: 'object'"),
    ],
)
def test_mistakes(csv, change, message):
    result = run_script(
        "describe", "--labels", csv, "--out", csv.parent / "o", *change, OPENAI_API_KEY="", OPENAI_BASE_URL=""
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (csv.parent / "o").exists()


def test_help_is_quick():
    start = time.monotonic()
    result = run_script("describe", "--help")
    assert result.returncode == 0
    assert "--from-published" in result.stdout
    assert time.monotonic() - start < 2
