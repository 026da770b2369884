"""A local Ray as another machine, or another user, meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json, os, sys
if "imported" in sys.argv:
    import ray
from pipelines.cluster.session import connect
connect(num_cpus=1)
import ray, psutil  # Ray brings psutil
here = psutil.Process()
ids = {p.pid for p in [here, *here.children(recursive=True)]}
listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in ids}
address = ray.get_runtime_context().gcs_address
@ray.remote
def answer():
    return "RAY_AUTH_TOKEN" in os.environ
worked = ray.get(answer.remote())
code = "import ray; ray.init(sys.argv[1], logging_level='ERROR'); print('joined')"
os.environ["RAY_AUTH_TOKEN"] = "0" * 64
import subprocess
try:
    said = subprocess.run([sys.executable, "-c", "import sys; " + code, address], capture_output=True, text=True,
                          timeout=15).stdout
except subprocess.TimeoutExpired:  # refused, Ray tries again for long
    said = ""
print(json.dumps({"listening": sorted(listening), "worked": worked, "joined": "joined" in said,
                  "left": os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")}))
"""


@pytest.mark.ray
@pytest.mark.parametrize("imported", ["", "imported"])
def test_a_local_ray_listens_on_loopback_and_asks_for_our_token(tmp_path, imported):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_ADDRESS", "RAY_AUTH"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE, imported],
        env=kept | {"HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(Path.cwd())},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {ip.removeprefix("::ffff:") for ip in found["listening"]} == {"127.0.0.1"}
    assert found["worked"]
    assert not found["joined"]
    assert found["left"] is None
    assert not (tmp_path / ".ray" / "auth_token").exists()
