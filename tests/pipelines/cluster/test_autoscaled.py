"""A cluster whose autoscaler has started no machine yet, and whose head has no CPU, as in cluster.yaml."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

SCRIPT = """
import json, os, subprocess, sys, time
from pathlib import Path

import ray
from ray.autoscaler.sdk import request_resources
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID as HEAD
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_TYPE as KIND

from pipelines.cluster.capacity import check_room
from pipelines.cluster.session import connect
from pipelines.cluster.view import CONNECTED
from pipelines.config.schema import ScaleConfig
from pipelines.ingestion.decode import DecodeSettings
from pipelines.ingestion.ingest import ingest
from pipelines.videos.inputs import find_inputs
from vlmodels.errors import UserError

folder = Path(sys.argv[1])

def kind(cpus, most):
    return {"resources": {"CPU": cpus, "object_store_memory": 80_000_000}, "node_config": {}, "max_workers": most}

def answer(workers):
    try:
        return check_room(ScaleConfig(workers=workers), CONNECTED.nodes())
    except UserError as error:
        return str(error)

# Ray's package lacks the defaults of its "fake_multinode": as "external" the same provider needs none.
module = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
provider = {"type": "external", "module": module, "head_node_id": HEAD, "launch_multiple": True}
configuration = {
    "cluster_name": "fake", "max_workers": 2, "idle_timeout_minutes": 5, "auth": {}, "file_mounts": {}, "docker": {},
    "provider": provider | {"disable_node_updaters": True}, "cluster_synced_files": [],
    "head_node_type": KIND, "available_node_types": {KIND: kind(0, 0), "cpu_worker": kind(1, 2)},
}
commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
configuration |= {f"{name}_commands": [] for name in commands}
(folder / "autoscaler.json").write_text(json.dumps(configuration))
flags = ["--num-cpus=0", "--object-store-memory=80000000", "--include-dashboard=false", "--disable-usage-stats"]
subprocess.run(
    [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port=6379", *flags,
     f"--autoscaling-config={folder / 'autoscaler.json'}"],
    env=os.environ | {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1",
        "RAY_NODE_TYPE_NAME": KIND, "RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    },
    check=True, stdout=sys.stderr,
)
connect()
answers = {"cpus": ray.cluster_resources().get("CPU", 0), "before": answer(3)}
(Path.home() / "ray_bootstrap_config.yaml").write_text(json.dumps(configuration))  # as `ray up` leaves it
answers["limit"] = answer(3)
(Path.home() / "ray_bootstrap_config.yaml").unlink()

lines = []
report = ingest(find_inputs([folder / "videos"]), folder / "out", DecodeSettings(frames=2, size=16, pool=1),
                decode="tests.helpers.fake_decoders:paint", say=lines.append)
answers |= {"ok": report.ok, "line": lines[0], "types": sorted(CONNECTED.node_types())}
request_resources(bundles=[{"CPU": 1}] * 3)
until = time.monotonic() + 20
while not (beyond := CONNECTED.is_beyond_limits()) and time.monotonic() < until:
    time.sleep(0.2)
print(json.dumps(answers | {"beyond": beyond}))
"""

# A `ray start` of its own: in namespaces nothing of it is left, and it meets no other Ray.
ENTER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--net", "bash", "-ec")
ALONE = """
mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray
ip link set lo up && ip addr add 10.99.0.1/32 dev lo && ip route add default dev lo
"""


@pytest.fixture
def alone():
    """Begin of a command line in namespaces of its own."""
    if shutil.which("unshare") is None or subprocess.run([*ENTER, ALONE], capture_output=True, check=False).returncode:
        pytest.skip("needs root, unshare and ip, for a cluster in namespaces of its own")
    return [*ENTER, f'{ALONE}\nexec "$@"', "alone"]


@pytest.mark.ray
def test_an_ingest_brings_machines(alone, tmp_path):
    """No CPU is up at first; the limits are two machines with one each."""
    for number in range(10):
        video = tmp_path / "videos" / f"class {number % 2}" / f"{number}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_bytes(bytes([number, 1]))
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
    environment |= {"RAY_ADDRESS": "10.99.0.1:6379", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*alone, sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    assert answers["cpus"] == 0
    (line,) = answers["before"]
    assert line.endswith("waiting for 3 more, for which the autoscaler may start machines")
    assert "3 workers (1 CPUs each) are more than the 2 for which the autoscaler may start machines" in answers["limit"]
    assert answers["line"] == (
        "decoding 10 clips in 2 batches with 2 workers, which wait for machines that the autoscaler may start"
    )
    assert answers["ok"] == 10
    assert answers["types"] == ["cpu_worker", "ray.head.default"]
    assert answers["beyond"]
