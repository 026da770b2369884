"""What is found of a cluster before workers start: by facts made up here, and on a cluster of real nodes."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import node_facts, preflight, room
from pipelines.config import ScaleConfig, TrainConfig
from pipelines.plan import code_version
from pipelines.preflight import compare
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
    "data": {"s3://bucket/data": {"digest": "d", "bytes": 40_000_000_000, "largest": 300_000_000}},
    "weights": {"bytes": 4, "sha256": "f" * 64},
    "shared": "",
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
        ({"data": {"s3://bucket/data": {"digest": "e"}}}, "s3://bucket/data holds other data there"),
        ({"weights": {"error": "No such file or directory"}}, "weight file cannot be read there (No such file"),
        ({"weights": {"bytes": 3}}, "weight file is another one there (3 bytes, sha256 ffffffffffff)"),
        ({"shared": "else"}, "--out must be a shared folder or a store"),
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


# ------------------------------------------------------------------------------------------------ room


def machines(*resources):
    return [{"Resources": dict(zip(("CPU", "GPU"), pair, strict=False))} for pair in resources]


@pytest.fixture
def fixed(monkeypatch):
    monkeypatch.setattr(room, "can_grow", lambda nodes: False)


@given(
    st.lists(st.tuples(st.integers(0, 16), st.integers(0, 8)), min_size=1, max_size=5),
    st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    st.booleans(),
)
def test_workers_fit_machine_by_machine(resources, cpus, gpu):
    scale = ScaleConfig(cpus_per_worker=cpus, gpu=gpu)
    for cores, gpus in resources:
        least = 0
        while (least + 1) * cpus <= cores and (not gpu or least + 1 <= gpus):
            least += 1
        assert room.places(scale, {"CPU": cores, "GPU": gpus}) == least


def test_shares_of_a_gpu_add_up():
    assert room.places(ScaleConfig(gpu=True, gpus_per_worker=0.1, cpus_per_worker=0.1), {"CPU": 1, "GPU": 1}) == 10


def test_cores_of_two_machines_are_not_added(fixed):
    with pytest.raises(UserError, match="2 workers need 4 CPUs but Ray has 4 CPUs on 2 machines, where 1 fit;"):
        room.check_room(ScaleConfig(workers=2, cpus_per_worker=2), machines((3,), (1,)))
    assert room.check_room(ScaleConfig(workers=2, cpus_per_worker=2), machines((3,), (2,))) == []


def test_fewer_workers_go_on_where_that_is_allowed(fixed):
    scale = ScaleConfig(workers=4, min_workers=2)
    assert room.check_room(scale, machines((2,), (1,))) == [
        "3 of 4 workers fit on the cluster (1 CPUs each, 2 machines): going on with these (scale.min_workers=2)"
    ]
    with pytest.raises(UserError, match="2 workers need 2 CPUs but Ray has 1 CPUs"):
        room.check_room(scale, machines((1,)))


def test_an_autoscaler_is_waited_for(monkeypatch):
    monkeypatch.setattr(room, "can_grow", lambda nodes: True)
    (line,) = room.check_room(ScaleConfig(workers=4, gpu=True), machines((8, 1)))
    assert line.startswith("1 of 4 workers fit on the cluster (1 CPUs and 1 GPUs each, 1 machines): waiting for 3 more")


def test_an_autoscaler_is_known_by_its_types_and_its_limit(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(room, "_node_types", lambda: {"node_12ab", "node_34cd"})  # started by hand
    assert not room.can_grow(2)
    monkeypatch.setattr(room, "_node_types", lambda: {"head", "gpu_worker"})
    assert room.can_grow(2)
    (tmp_path / "ray_bootstrap_config.yaml").write_text("max_workers: 2\n")
    assert room.can_grow(2)
    assert not room.can_grow(3)  # the head and two workers are up
    monkeypatch.setattr(room, "_node_types", lambda: 1 / 0)
    assert not room.can_grow(2)


# ----------------------------------------------------------------------------------------------- facts


def request(**changes):
    asked = {"data": [], "weights": "", "out": "", "shared": "", "sources": "", "cache": False, "gpus": False}
    return asked | changes


def write_index(folder, digest="d", sizes=(3, 5)):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").write_text(json.dumps({"digest": digest, "shards": [{"bytes": n} for n in sizes]}))


def test_the_sources_are_those_that_name_a_run():
    assert node_facts.sources_digest() == code_version()


def test_local_files_are_read_without_the_project(tmp_path, monkeypatch):
    monkeypatch.setattr(node_facts, "SOURCES", ("no_such_package",))
    write_index(tmp_path / "data")
    (tmp_path / "w.pt").write_bytes(b"1234")
    names = [str(tmp_path / "data"), str(tmp_path / "else"), "s3://bucket/data"]
    found = node_facts.facts(request(data=names, weights=str(tmp_path / "w.pt"), sources="x"))
    assert found["sources"] == ""
    assert found["data"] == {
        names[0]: {"digest": "d", "bytes": 8, "largest": 5},
        names[1]: {"error": "there is no index.json"},
        names[2]: {},
    }
    assert found["weights"]["bytes"] == 4
    found = node_facts.facts(request(weights=str(tmp_path / "none.pt")))
    assert found["weights"] == {"error": "No such file or directory"}


def test_a_store_is_asked_through_the_project(tmp_path):
    from pyarrow import fs

    write_index(tmp_path / "data")
    name = f"mock://{tmp_path}/data"  # Arrow's store in memory: there, but empty
    assert fs.FileSystem.from_uri(name)
    found = node_facts.facts(request(data=[name, "nonsense://x"], out="nonsense://x"))
    assert found["data"][name] == {"error": "there is no index.json"}
    assert "nonsense" in found["data"]["nonsense://x"]["error"]
    assert "nonsense" in found["out"]


def test_a_folder_is_shared_where_the_mark_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(node_facts.time, "sleep", lambda _: None)
    out = str(tmp_path / "out")
    with preflight._marker(out) as mark:
        found = node_facts.facts(request(out=out, shared=mark))
        assert found["shared"] == Path(mark).read_text()
        assert found["out"] == ""
    assert list((tmp_path / "out" / ".ray").iterdir()) == []
    alone = str(tmp_path / "alone")
    assert node_facts.facts(request(out=alone, shared=f"{alone}/.ray/mark"))["shared"] == ""
    assert not Path(alone).exists()
    with preflight._marker("s3://bucket/runs") as mark:
        assert mark == ""


def test_the_cache_is_measured_where_it_will_be(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "not" / "yet"))
    found = node_facts.facts(request(cache=True))["cache"]
    assert found["folder"] == str(tmp_path / "not" / "yet")
    assert found["held"] == 0
    assert found["free"] > 0
    assert found["writable"]
    (tmp_path / "not" / "yet").mkdir(parents=True)
    (tmp_path / "not" / "yet" / "shard").write_bytes(b"12345")
    assert node_facts.facts(request(cache=True))["cache"]["held"] == 5


def test_a_store_that_cannot_be_used_says_why(s3):
    from pipelines.storage import Place

    (Place.open(s3) / "data/index.json").write(json.dumps({"digest": "d", "shards": [{"bytes": 7}]}).encode())
    names = [f"{s3}/data", f"{s3}/else", "s3://no-such-bucket/data"]
    found = node_facts.facts(request(data=names, out=f"{s3}/runs", sources=code_version()))
    assert found["out"] == ""
    assert found["data"][names[0]] == {"digest": "d", "bytes": 7, "largest": 7}
    assert found["data"][names[1]] == found["data"][names[2]] == {"error": "there is no index.json"}
    assert "no-such-bucket" in node_facts.facts(request(out="s3://no-such-bucket/runs"))["out"]
    strange = node_facts.facts(request(data=names, out="s3://no-such-bucket/runs", sources="of another version"))
    assert (strange["out"], strange["data"][names[2]]) == ("", {})  # the difference is told; old code is not run


@pytest.mark.parametrize(("shown", "seen"), [("", 0), ("0", 1), (None, 0)])
def test_gpus_are_counted_where_ray_hides_them(monkeypatch, shown, seen):
    monkeypatch.setattr(node_facts, "_COUNT", "import os; print(int('CUDA_VISIBLE_DEVICES' in os.environ))")
    if shown is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert node_facts.facts(request(gpus=True))["gpus"] == {"seen": seen, "said": ""}


def test_a_machine_that_leaves_is_not_counted_on(monkeypatch, tmp_path, fixed):
    nodes = [{"NodeID": key, "Alive": True, "NodeManagerAddress": key, "Resources": {"CPU": 1}} for key in "ab"]
    monkeypatch.setattr("ray.nodes", lambda: nodes)

    def ask(asked, *_):
        nodes[1]["Alive"] = False
        own = node_facts.facts(request())
        return {"a": own | {"shared": next((tmp_path / ".ray").iterdir()).read_text()}}

    monkeypatch.setattr(preflight, "_ask", ask)
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
from pipelines.preflight import check_cluster
from pipelines.room import waiting
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
    assert "cannot be read there: there is no index.json" in said["no_data"]
    assert said["idle"] is None
    assert said["waiting"].startswith("waiting for room for 1 workers (2 CPUs each, 3 of 3 free)")
    assert list((tmp_path / "runs" / ".ray").iterdir()) == []


def test_one_machine_is_asked_for_room_and_gpus_alone(ray_session, monkeypatch, tmp_path):
    monkeypatch.setattr(preflight, "_ask", lambda *_: pytest.fail("no task is needed"))
    config = TrainConfig(out=str(tmp_path))
    assert preflight.check_cluster(config, data=["nowhere"]) == []
    with pytest.raises(UserError, match="3 workers need 3 CPUs but Ray has 2 CPUs"):
        preflight.check_cluster(replace(config, scale=ScaleConfig(workers=3)), data=[])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="Ray promises 1 GPUs there, PyTorch sees 0"):
        preflight._check_own_gpus(ScaleConfig(gpu=True), {"NodeManagerAddress": "7", "Resources": {"GPU": 1}})
