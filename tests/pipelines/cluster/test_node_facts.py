"""What a machine finds out about itself."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.cluster import node_facts, preflight
from pipelines.config.schema import TrainConfig
from pipelines.runs.worker import Job, work
from pipelines.storage.place import Place
from tests.helpers.fake_cluster import request, write_index


def test_all_sources_are_compared(tmp_path, monkeypatch):
    """A machine with another plot is another version too: less would be hard to explain there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "compared_package"
    (package / "reports").mkdir(parents=True)
    versions = set()
    for file in ("__init__.py", "reports/page.py", "reports/plots.py"):
        (package / file).write_text("a = 1\n")
        versions.add(node_facts.sources_digest(["compared_package"]))
    (package / "reports" / "page.py").write_text("a = 2\n")
    versions.add(node_facts.sources_digest(["compared_package"]))
    (package / "notes.txt").write_text("no source")
    versions.add(node_facts.sources_digest(["compared_package"]))
    assert len(versions) == 4
    assert node_facts.sources_digest(["compared_package", "no_such_package"]) == ""


def test_a_process_like_the_drivers_does_not_differ():
    expected = json.loads(json.dumps(node_facts.own()))  # plain values
    assert expected["packages"].keys() == {"torch", "ray", "open_clip_torch", "vidadapt"}
    assert expected["sources"] == node_facts.sources_digest()
    assert node_facts.differences(expected) == node_facts.differences(None) == ""
    expected["packages"]["torch"] = expected["packages"]["torch"].partition("+")[0] + "+cu999"  # of other hardware
    expected["python"] = expected["python"].rpartition(".")[0] + ".99"
    assert node_facts.differences(expected) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"python": "3.99.1"}, r"^Python 3\.\d+\.\S+ instead of 3\.99\.1: install there what the driver has"),
        ({"sources": "b" * 64}, r"^vidadapt \S+ with sources \w{8} instead of \S+ with bbbbbbbb: install"),
        ({"packages": {"ray": "0.1"}}, r"^ray \S+ instead of 0\.1: install"),
        ({"packages": {"no-such-package": "1.0"}}, r"^no-such-package 1\.0 is not installed: install"),
        (
            {"python": "3.99", "packages": {"torch": "0.1"}},
            r"^Python \S+ instead of 3\.99, torch \S+ instead of 0\.1",
        ),
    ],
)
def test_what_differs_from_the_driver_is_named(changes, words):
    assert re.search(words, node_facts.differences(node_facts.own() | changes))


def test_a_worker_compares_in_a_moment():
    expected = node_facts.own()
    seconds = []
    for _ in range(5):
        began = time.process_time()
        node_facts.differences(expected)
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.05


def test_local_files_are_read_without_the_project(tmp_path):
    write_index(tmp_path / "data")
    (tmp_path / "w.pt").write_bytes(b"1234")
    names = [str(tmp_path / "data"), str(tmp_path / "else"), "s3://bucket/data"]
    found = node_facts.facts(request(data=names, weights=str(tmp_path / "w.pt"), sources="x"), ["no_such_package"])
    assert found["sources"] == ""
    assert found["data"] == {
        names[0]: {"digest": "d", "layout": found["data"][names[0]]["layout"], "bytes": 8, "largest": 5},
        names[1]: {"error": "there is no index.json"},
        names[2]: {},
    }
    assert found["weights"]["bytes"] == 4
    found = node_facts.facts(request(weights=str(tmp_path / "none.pt")))
    assert found["weights"] == {"error": "No such file or directory"}


def test_a_layout_is_the_manifest_and_the_order_of_shards(tmp_path):
    names = [str(tmp_path / name) for name in "abcd"]
    for name, sizes, manifest in zip(names, ((3, 5), (3, 5), (5, 3), (3, 5)), "mmmn", strict=True):
        write_index(Path(name), sizes=sizes, manifest=manifest)
    found = node_facts.facts(request(data=names))["data"]
    assert {found[name]["digest"] for name in names} == {"d"}
    first, same, turned, other = (found[name]["layout"] for name in names)
    assert first == same
    assert len({first, turned, other}) == 3


def test_a_store_is_asked_through_the_project(tmp_path):
    from pyarrow import fs

    write_index(tmp_path / "data")
    name = f"mock://{tmp_path}/data"  # Arrow's store in memory: there, but empty
    assert fs.FileSystem.from_uri(name)
    found = node_facts.facts(request(data=[name, "nonsense://x"], out="nonsense://x"))
    assert found["data"][name] == {"error": "there is no index.json"}
    assert "nonsense" in found["data"]["nonsense://x"]["error"]
    assert "nonsense" in found["out"]


def test_a_folder_is_shared_where_the_same_file_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    out = str(tmp_path / "out")
    with preflight.shared_file(out) as shared:
        found = node_facts.facts(request(out=out, shared=shared))
        assert found["shared"] == (32, Path(shared).read_bytes())
        assert found["out"] == ""
    assert list((tmp_path / "out" / ".ray").iterdir()) == []
    alone = str(tmp_path / "alone")
    assert node_facts.facts(request(out=alone, shared=f"{alone}/.ray/file"))["shared"] is None
    assert not Path(alone).exists()
    with preflight.shared_file("s3://bucket/runs") as shared:
        assert shared == ""


def test_files_are_known_by_size_and_first_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    (tmp_path / "a").write_text("one")
    assert node_facts.look(str(tmp_path / "a")) == (3, b"one")
    assert node_facts.look(str(tmp_path / "b")) is None
    assert node_facts.looks([str(tmp_path), str(tmp_path / "a")]) == [None, (3, b"one")]


def test_the_cache_is_measured_where_it_will_be(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "not" / "yet"))
    found = node_facts.facts(request(cache=True))["cache"]
    assert found["folder"] == str(tmp_path / "not" / "yet")
    assert found["held"] == 0
    assert found["free"] > 0
    assert found["writable"]
    (tmp_path / "not" / "yet").mkdir(parents=True)
    (tmp_path / "not" / "yet" / "shard").write_bytes(b"12345")
    (tmp_path / "not" / "yet" / "gone").symlink_to("renamed meanwhile")
    assert node_facts.facts(request(cache=True))["cache"]["held"] == 5


def test_a_store_that_cannot_be_used_says_why(s3, tmp_path):
    write_index(tmp_path / "data", sizes=(7,))
    local = str(tmp_path / "data")
    (Place.open(s3) / "data/index.json").write((tmp_path / "data" / "index.json").read_bytes())
    names = [f"{s3}/data", f"{s3}/else", "s3://no-such-bucket/data"]
    found = node_facts.facts(request(data=names, out=f"{s3}/runs", sources=node_facts.sources_digest()))
    assert found["out"] == ""
    assert found["data"][names[0]] == node_facts.facts(request(data=[local]))["data"][local]
    assert found["data"][names[1]] == found["data"][names[2]] == {"error": "there is no index.json"}
    assert "no-such-bucket" in node_facts.facts(request(out="s3://no-such-bucket/runs"))["out"]
    strange = node_facts.facts(request(data=names, out="s3://no-such-bucket/runs", sources="of another version"))
    assert (strange["out"], strange["data"][names[2]]) == ("", {})  # the difference is reported; old code is not run


@pytest.mark.parametrize(("shown", "seen"), [("", 0), ("0", 1), (None, 0)])
def test_gpus_are_counted_where_ray_hides_them(monkeypatch, shown, seen):
    script = "import os; print(int('CUDA_VISIBLE_DEVICES' in os.environ))"
    if shown is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert node_facts.gpus(script) == {"seen": seen, "complaint": ""}


def test_a_broken_driver_is_quoted(monkeypatch):
    done = SimpleNamespace(stdout="note\n1\n", stderr="first\nthe driver is too old\n")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    assert node_facts.facts(request(gpus=True))["gpus"] == {"seen": 1, "complaint": "the driver is too old"}
    assert node_facts.facts(request())["gpus"] is None


def test_a_worker_on_an_unlike_machine_ends_before_it_builds_anything():
    expected = node_facts.own()
    expected["packages"] = expected["packages"] | {"torch": "1.0.0"}
    job = Job("run", None, TrainConfig(), split=None, descriptions=None, expected=expected)
    answer = work(job, SimpleNamespace(host="10.0.0.7"), send=None)
    assert answer.error.startswith("10.0.0.7: torch ")
    assert "instead of 1.0.0" in answer.error
