"""What is found of a cluster before workers start: by facts made up here, and on a cluster of real nodes."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from pipelines.cluster import node_facts, preflight
from pipelines.cluster.preflight import compare
from pipelines.config.schema import ScaleConfig, TrainConfig
from tests.pipelines.cluster.test_node_facts import request, write_index
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
    "shared": None,
    "out": "",
    "cache": {},
    "gpus": {},
}
CACHE = {"folder": "/cache", "free": 10**12, "held": 0, "writable": True}


def there(**changes):
    found = copy.deepcopy(HERE)
    for name, value in changes.items():
        found[name] = {**found[name], **value} if isinstance(value, dict) else value
    return found


def test_a_machine_like_this_one_is_fine():
    assert compare(HERE, there()) == ([], [])
    assert compare(HERE, there(cache=CACHE, gpus={"seen": 2, "said": ""}), promised=2) == ([], [])


@pytest.mark.parametrize(
    ("changes", "said"),
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
        ({"shared": (4, b"else")}, "--out must be a shared folder or a store"),
        ({"out": "s3://b: ACCESS_DENIED"}, "runs cannot be written from there: s3://b: ACCESS_DENIED"),
        ({"gpus": {"seen": 1, "said": "driver too old"}}, "Ray promises 2 GPUs there, PyTorch sees 1 (driver too old)"),
        ({"cache": CACHE | {"writable": False}}, "set VIDADAPT_CACHE to a writable folder"),
        ({"cache": CACHE | {"free": 10**8}}, "/cache has 0.1 GB free, less than one shard; set VIDADAPT_CACHE"),
    ],
)
def test_what_forbids_a_worker_is_named_with_a_remedy(changes, said):
    problems, notes = compare(HERE, there(**changes), promised=2)
    assert len(problems) == 1
    assert said in problems[0]
    assert notes == []


@pytest.mark.parametrize(
    ("changes", "share", "said"),
    [
        ({"packages": {"numpy": "2.4.0"}}, 1, "numpy 2.4.0 instead of 2.4.1"),
        ({"packages": {"torch": "2.15.0+cu128"}}, 1, "torch 2.15.0+cu128 instead of 2.15.0+cpu"),
        ({"python": "3.11.9"}, 1, "Python 3.11.9 instead of 3.11.7"),
        ({"cache": CACHE | {"free": 30 * 10**9}}, 1, "/cache has 30.0 GB free, shards may take 40.0 GB"),
    ],
)
def test_what_is_harmless_is_a_note(changes, share, said):
    problems, notes = compare(HERE, there(**changes), share=share)
    assert problems == []
    assert len(notes) == 1
    assert said in notes[0]


def test_a_cache_needs_room_for_what_is_not_in_it_yet():
    assert compare(HERE, there(cache=CACHE | {"free": 30 * 10**9, "held": 10 * 10**9})) == ([], [])
    assert compare(HERE, there(cache=CACHE | {"free": 30 * 10**9}), share=0.5) == ([], [])


def test_machines_with_the_same_to_say_share_a_line():
    nodes = {key: {"NodeManagerAddress": address} for key, address in zip("abcd", ("7", "8", "9", "9"), strict=True)}
    said = {"a": ["old torch"], "b": ["old torch"], "c": ["no data", "old torch"], "d": []}
    assert preflight._told(nodes, said) == ["7, 8: old torch", "9 (c): no data; old torch"]


def test_keys_in_an_address_are_not_shown():
    address = "s3://user:secret@bucket/data?token=secret"
    here = HERE | {"data": {address: {"digest": "d", "layout": "l"}}}
    for found in ({"error": "away"}, {"digest": "e"}, {"digest": "d", "layout": "m"}):
        (problem,), _ = compare(here, HERE | {"data": {address: found}})
        assert problem.startswith("s3://bucket/data ")
        assert "secret" not in problem


def test_data_that_the_driver_cannot_read_is_no_other_machines_fault(monkeypatch, tmp_path):
    nodes = [{"NodeID": key, "Alive": True, "NodeManagerAddress": key, "Resources": {"CPU": 1}} for key in "ab"]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr(preflight, "ask", lambda *_: pytest.fail("the others are not asked"))
    write_index(tmp_path / "data")
    data = [str(tmp_path / "data"), "nonsense://bucket/data?token=secret"]
    with pytest.raises(UserError, match=r"^this machine cannot read nonsense://bucket/data: .*; mend that") as raised:
        preflight.check_cluster(TrainConfig(out=str(tmp_path)), data=data)
    assert "secret" not in str(raised.value)


def test_a_machine_that_leaves_is_not_counted_on(monkeypatch, tmp_path):
    monkeypatch.setattr("pipelines.cluster.capacity.can_grow", lambda nodes: False)
    nodes = [{"NodeID": key, "Alive": True, "NodeManagerAddress": key, "Resources": {"CPU": 1}} for key in "ab"]
    monkeypatch.setattr("ray.nodes", lambda: nodes)

    def ask(asked, *_):
        nodes[1]["Alive"] = False
        own = node_facts.facts(request())
        return {"a": own | {"shared": node_facts.look(str(next((tmp_path / ".ray").iterdir())))}}

    monkeypatch.setattr(preflight, "ask", ask)
    config = TrainConfig(out=str(tmp_path))
    assert preflight.check_cluster(config, data=[]) == ["b: left the cluster while it was checked"]
    nodes[1]["Alive"] = True
    with pytest.raises(UserError, match="2 workers need 2 CPUs but Ray has 1 CPUs"):
        preflight.check_cluster(replace(config, scale=ScaleConfig(workers=2)), data=[])


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

from pipelines.config import DataConfig, ScaleConfig, TrainConfig
from pipelines.cluster.preflight import check_cluster
from pipelines.cluster.capacity import waiting
from vlmodels.errors import UserError

def told(config):
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
    answers["mixed"] = told(config)
    answers["gpu"] = told(replace(config, scale=ScaleConfig(gpu=True)))
    answers["large"] = told(replace(config, scale=ScaleConfig(workers=2, cpus_per_worker=2)))
    config = replace(config, scale=ScaleConfig(cpus_per_worker=2))  # for which the other node is too small
    start = time.perf_counter()
    answers["good"] = told(config)
    print("good", time.perf_counter() - start, file=sys.stderr)
    answers["no_data"] = told(replace(config, data=DataConfig(dir=str(folder / "none"))))
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
    said = json.loads(done.stdout.splitlines()[-1])
    mixed = said["mixed"]
    assert f"({said['bad']}): vidadapt is not installed; pip install it there (cluster.yaml: setup_commands)" in mixed
    assert "torch 2.0.0 instead of" in mixed
    assert mixed.count("): ") == 1  # the other node is as the driver is
    assert "Ray promises 1 GPUs there, PyTorch sees 0" in said["gpu"]
    assert "2 workers need 4 CPUs but Ray has 3 CPUs on 2 machines, where 1 fit" in said["large"]
    assert said["good"] == []
    assert f"this machine cannot read {tmp_path}/none: there is no index.json" in said["no_data"]
    assert said["idle"] is None
    assert said["waiting"].startswith("waiting for room for 1 workers (2 CPUs each, 3 of 3 free)")
    assert list((tmp_path / "runs" / ".ray").iterdir()) == []


def test_one_machine_is_asked_for_room_and_gpus_alone(ray_session, monkeypatch, tmp_path):
    monkeypatch.setattr(preflight, "ask", lambda *_: pytest.fail("no task is needed"))
    config = TrainConfig(out=str(tmp_path))
    assert preflight.check_cluster(config, data=["nowhere"]) == []
    with pytest.raises(UserError, match="3 workers need 3 CPUs but Ray has 2 CPUs"):
        preflight.check_cluster(replace(config, scale=ScaleConfig(workers=3)), data=[])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="Ray promises 1 GPUs there, PyTorch sees 0"):
        preflight._check_own_gpus(ScaleConfig(gpu=True), {"NodeManagerAddress": "7", "Resources": {"GPU": 1}})
