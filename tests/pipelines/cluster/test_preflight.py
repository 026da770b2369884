"""A cluster is checked before workers start: with made-up facts, and on a cluster of real nodes."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from pipelines.cluster import node_facts
from pipelines.cluster.preflight import Verdict, check_cluster, compare, lines_by_machine
from pipelines.config.schema import ScaleConfig, TrainConfig
from tests.helpers.fake_cluster import FakeCluster, machine, request, write_index
from vlmodels.errors import UserError

HERE = {
    "python": "3.11.7",
    "packages": {
        "torch": "2.15.0+cpu",
        "ray": "2.60.0",
        "open_clip_torch": "3.3.0",
        "pyarrow": "25.0.0",
        "numpy": "2.4.1",
        "safetensors": "0.7.0",
        "vidadapt": "0.1.0",
    },
    "sources": "a" * 64,
    "data": {"s3://bucket/data": {"digest": "d", "layout": "l", "bytes": 40_000_000_000, "largest": 300_000_000}},
    "weights": {"bytes": 4, "sha256": "f" * 64},
    "beside": {"/w/tokenizer.json": {"bytes": 5, "sha256": "e" * 64}},
    "shared": None,
    "out": "",
    "cache": None,
    "gpus": None,
}
CACHE = {"folder": "/cache", "free": 10**12, "held": 0, "writable": True}
FINE = Verdict([], [])


def there(**changes):
    found = copy.deepcopy(HERE)
    for name, value in changes.items():
        found[name] = {**(found[name] or {}), **value} if isinstance(value, dict) else value
    return found


def test_a_machine_like_this_one_is_fine():
    assert compare(HERE, there()) == FINE
    assert compare(HERE, there(cache=CACHE, gpus={"seen": 2, "complaint": ""}), promised=2) == FINE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"packages": {"torch": "2.14.0"}}, "torch 2.14.0 instead of 2.15.0+cpu: install"),
        ({"packages": {"ray": "2.59.0"}}, "ray 2.59.0 instead of 2.60.0"),
        ({"packages": {"open_clip_torch": "3.2.0"}}, "open_clip_torch 3.2.0 instead of 3.3.0"),
        ({"packages": {"numpy": "1.26.0"}}, "numpy 1.26.0 instead of 2.4.1"),
        ({"packages": {"safetensors": ""}}, "safetensors 0.7.0 is not installed"),
        ({"python": "3.12.7"}, "Python 3.12.7 instead of 3.11.7"),
        ({"sources": "b" * 64, "packages": {"vidadapt": "0.0.9"}}, "vidadapt 0.0.9 with sources bbbbbbbb instead"),
        ({"sources": ""}, "vidadapt is not installed; pip install it there (cluster.yaml: setup_commands)"),
        ({"data": {"s3://bucket/data": {"error": "no such bucket"}}}, "s3://bucket/data cannot be read there: no such"),
        (
            {"data": {"s3://bucket/data": {"digest": "e"}}},
            "s3://bucket/data holds other data there; copy the",
        ),
        (
            {"data": {"s3://bucket/data": {"digest": "d", "layout": "m"}}},
            "s3://bucket/data holds the same clips there, but ingested apart, in other shards; copy the",
        ),
        ({"weights": {"error": "No such file or directory"}}, "weight file cannot be read there (No such file"),
        ({"weights": {"bytes": 3}}, "weight file is another one there (3 bytes, sha256 ffffffffffff)"),
        (
            {"beside": {"/w/tokenizer.json": {"error": "No such file"}}},
            "tokenizer's tokenizer.json cannot be read there",
        ),
        (
            {"beside": {"/w/tokenizer.json": {"bytes": 3, "sha256": "f" * 64}}},
            "the tokenizer's tokenizer.json is another one there (3 bytes, sha256 ffffffffffff); copy it",
        ),
        ({"shared": (4, b"else")}, "--out must be a shared folder or a store"),
        ({"out": "s3://b: ACCESS_DENIED"}, "runs cannot be written from there: s3://b: ACCESS_DENIED"),
        (
            {"gpus": {"seen": 1, "complaint": "driver too old"}},
            "Ray promises 2 GPUs there, PyTorch sees 1 (driver too old)",
        ),
        ({"cache": CACHE | {"writable": False}}, "set VIDADAPT_CACHE to a writable folder"),
        ({"cache": CACHE | {"free": 10**8}}, "/cache has 0.1 GB free, less than one shard; set VIDADAPT_CACHE"),
    ],
)
def test_what_forbids_a_worker_is_named_with_a_remedy(changes, words):
    verdict = compare(HERE, there(**changes), promised=2)
    (problem,) = verdict.problems
    assert words in problem
    assert verdict.notes == []


@pytest.mark.parametrize(
    ("changes", "share", "words"),
    [
        ({"packages": {"numpy": "2.4.0"}}, 1, "numpy 2.4.0 instead of 2.4.1"),
        ({"packages": {"torch": "2.15.0+cu128"}}, 1, "torch 2.15.0+cu128 instead of 2.15.0+cpu"),
        ({"python": "3.11.9"}, 1, "Python 3.11.9 instead of 3.11.7"),
        ({"cache": CACHE | {"free": 30 * 10**9}}, 1, "/cache has 30.0 GB free, shards may take 40.0 GB"),
    ],
)
def test_what_is_harmless_is_a_note(changes, share, words):
    verdict = compare(HERE, there(**changes), share=share)
    (note,) = verdict.notes
    assert words in note
    assert verdict.problems == []


def test_a_cache_needs_room_for_what_is_not_in_it_yet():
    assert compare(HERE, there(cache=CACHE | {"free": 30 * 10**9, "held": 10 * 10**9})) == FINE
    assert compare(HERE, there(cache=CACHE | {"free": 30 * 10**9}), share=0.5) == FINE


def test_machines_with_the_same_problems_share_a_line():
    nodes = {name: machine(name, address=address) for name, address in zip("abcd", "7899", strict=True)}
    words = {"a": ["old torch"], "b": ["old torch"], "c": ["no data", "old torch"], "d": []}
    assert lines_by_machine(nodes, words) == ["7, 8: old torch", "9 (c): no data; old torch"]


def test_keys_in_an_address_are_not_shown():
    address = "s3://user:secret@bucket/data?token=secret"
    here = HERE | {"data": {address: {"digest": "d", "layout": "l"}}}
    for found in ({"error": "away"}, {"digest": "e"}, {"digest": "d", "layout": "m"}):
        (problem,) = compare(here, HERE | {"data": {address: found}}).problems
        assert problem.startswith("s3://bucket/data ")
        assert "secret" not in problem


def two_machines():
    return FakeCluster([machine("a", CPU=1), machine("b", CPU=1)])


def no_machine_is_asked(*_):
    pytest.fail("no other machine is asked")


def test_data_that_the_driver_cannot_read_is_no_other_machines_fault(tmp_path):
    write_index(tmp_path / "data")
    data = [str(tmp_path / "data"), "nonsense://bucket/data?token=secret"]
    with pytest.raises(
        UserError, match=r"^this machine cannot read nonsense://bucket/data: .*; correct that"
    ) as raised:
        check_cluster(TrainConfig(out=str(tmp_path)), data=data, cluster=two_machines(), ask=no_machine_is_asked)
    assert "secret" not in str(raised.value)


def test_a_machine_that_leaves_is_not_counted_on(tmp_path):
    def answers(cluster):
        def ask(*_):
            cluster.machines[1]["Alive"] = False
            own = node_facts.facts(request())
            return {"a": own | {"shared": node_facts.look(str(next((tmp_path / ".ray").iterdir())))}}

        return ask

    config, cluster = TrainConfig(out=str(tmp_path)), two_machines()
    lines = check_cluster(config, data=[], cluster=cluster, ask=answers(cluster))
    assert lines == ["b: left the cluster while it was checked"]
    config, cluster = replace(config, scale=ScaleConfig(workers=2)), two_machines()
    with pytest.raises(UserError, match="2 workers need 2 CPUs but Ray has 1 CPUs"):
        check_cluster(config, data=[], cluster=cluster, ask=answers(cluster))


def test_machines_that_do_not_answer_are_named(tmp_path):
    def ask(nodes, *_):
        return dict.fromkeys(nodes, "no answer within 9 s")

    with pytest.raises(UserError, match=r"^a, b: no answer within 9 s$"):
        check_cluster(TrainConfig(out=str(tmp_path)), data=[], cluster=two_machines(), ask=ask)


def test_a_gpu_of_this_machine_that_pytorch_does_not_see_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    config = TrainConfig(out=str(tmp_path), scale=ScaleConfig(gpu=True))
    cluster = FakeCluster([machine("a", address="7", CPU=1, GPU=1)])
    with pytest.raises(UserError, match="7: Ray promises 1 GPUs there, PyTorch sees 0"):
        check_cluster(config, data=[], cluster=cluster, ask=no_machine_is_asked)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden from this process alone
    assert check_cluster(config, data=[], cluster=cluster, ask=no_machine_is_asked) == []


# --------------------------------------------------------------------------------------- real clusters

BLIND = """
import sys

class Blind:  # what finds modules here, but not the project's
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in ("pipelines", "vlmodels") else self.finder.find_spec(name, *rest)

sys.meta_path[:] = [Blind(finder) for finder in sys.meta_path]
"""

CLUSTER = """
import json, sys, time
from dataclasses import replace
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group, remove_placement_group

from pipelines.cluster.capacity import waiting
from pipelines.cluster.preflight import check_cluster
from pipelines.config.schema import DataConfig, ScaleConfig, TrainConfig
from vlmodels.errors import UserError

def answer(config):
    try:
        return check_cluster(config, data=[config.data.dir])
    except UserError as error:
        return str(error)

folder = Path(sys.argv[1])
small = {"object_store_memory": 80_000_000, "num_gpus": 0}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **small})
answers = {}
try:
    bad = cluster.add_node(num_cpus=1, **small | {"num_gpus": 1}, env_vars={"PYTHONPATH": str(folder / "blind")})
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    config = TrainConfig(out=str(folder / "runs"), data=DataConfig(dir=str(folder / "data")), scale=ScaleConfig())
    answers["bad"] = bad.node_id[:6]
    answers["mixed"] = answer(config)
    answers["gpu"] = answer(replace(config, scale=ScaleConfig(gpu=True)))
    answers["large"] = answer(replace(config, scale=ScaleConfig(workers=2, cpus_per_worker=2)))
    config = replace(config, scale=ScaleConfig(cpus_per_worker=2))  # for which the other node is too small
    start = time.perf_counter()
    answers["good"] = answer(config)
    print("good", time.perf_counter() - start, file=sys.stderr)
    answers["no_data"] = answer(replace(config, data=DataConfig(dir=str(folder / "none"))))
    answers["idle"] = waiting(config)
    group = placement_group([{"CPU": 2}, {"CPU": 2}])
    while not (line := waiting(config)):
        time.sleep(0.1)
    answers["waiting"] = line
    remove_placement_group(group)
finally:
    ray.shutdown()
    cluster.shutdown()
print(json.dumps(answers))
"""


@pytest.mark.ray
def test_machines_of_a_cluster_are_asked(tmp_path):
    """Of two nodes one lacks the project, has another torch, and no GPU though Ray promises one."""
    write_index(tmp_path / "data")
    other = tmp_path / "blind" / "torch-2.0.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.0\n")
    (tmp_path / "blind" / "sitecustomize.py").write_text(BLIND)
    (tmp_path / "script.py").write_text(textwrap.dedent(CLUSTER))
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    mixed = answers["mixed"]
    assert (
        f"({answers['bad']}): vidadapt is not installed; pip install it there (cluster.yaml: setup_commands)" in mixed
    )
    assert "torch 2.0.0 instead of" in mixed
    assert mixed.count("): ") == 1  # the other node is as the driver is
    assert "Ray promises 1 GPUs there, PyTorch sees 0" in answers["gpu"]
    assert "2 workers need 4 CPUs but Ray has 3 CPUs on 2 machines, where 1 fit" in answers["large"]
    assert answers["good"] == []
    assert f"this machine cannot read {tmp_path}/none: there is no index.json" in answers["no_data"]
    assert answers["idle"] is None
    assert answers["waiting"].startswith("waiting for room for 1 workers (2 CPUs each, 3 of 3 free)")
    assert list((tmp_path / "runs" / ".ray").iterdir()) == []


def test_one_machine_is_asked_for_room_and_gpus_alone(ray_session, tmp_path):
    config = TrainConfig(out=str(tmp_path))
    assert check_cluster(config, data=["nowhere"], ask=no_machine_is_asked) == []
    with pytest.raises(UserError, match="3 workers need 3 CPUs but Ray has 2 CPUs"):
        check_cluster(replace(config, scale=ScaleConfig(workers=3)), data=[], ask=no_machine_is_asked)
