"""What each entry loads: the table says which heavy packages it must not, as processes start faster without them.

``python -X importtime`` shows where an import comes from. A stand-in (``vlmodels/deferred_imports.py``) is in
``sys.modules`` under its package's name, so packages that are deferred are named here by one of their modules.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pipelines.ingestion.decode import DecodeSettings
from tests.helpers.ingesting import in_process
from tests.helpers.scripts import SCRIPTS

DYNAMO, TIMM = "torch._dynamo.eval_frame", "timm.models"
PLOTS = ("matplotlib", "sklearn", "scipy")
SERVICES = ("ray", "mlflow", "openai", "optuna", "pandas")

HELP = """
import contextlib, importlib, io, sys
scripts = sys.argv[1:]
for script in scripts:
    sys.argv = [script, "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module(script).main(["--help"])
"""
PREDICT = """
import vlmodels, numpy as np
method = vlmodels.get_method("st_adapter")
method = method(vlmodels.create("toy", weights="toy", num_frames=4), method.Config())
method.set_classes(["walking", "clapping"])
vlmodels.Predictor(method)(np.zeros((8, 64, 80, 3), np.uint8))
"""
PLAN = """
import dataclasses, sys
from pipelines.config.resolve import resolve
from pipelines.config.schema import TrainConfig
from pipelines.planning.plan import plan_run
folder = sys.argv[1]
base = TrainConfig()
base = dataclasses.replace(
    base,
    backbone=dataclasses.replace(base.backbone, pretrained="toy"),
    data=dataclasses.replace(base.data, dir=f"{folder}/data"),
    out=f"{folder}/runs",
)
settings = ["method.layers=3-4", "method.dims=8", "method.alpha=0", "optim.epochs=1", "optim.warmup_epochs=0",
            "optim.batch_size=4", "protocol.shots=4"]
plan = plan_run(resolve(method="msta", preset=None, base=base, overrides=settings))
"""
TRAIN = (
    PLAN
    + """
from pipelines.runs.run import run_training
assert run_training(plan).record.history
"""
)
REPORT = """
import json, sys
print(json.dumps(sorted(sys.modules)))
"""

# Entry -> (its code, what it must not load). Extend it here: one process for each entry, of some seconds.
ENTRIES = {
    "--help of all scripts": (
        HELP,
        ("torch", "numpy", "pydantic", "pyarrow", "open_clip", "torchvision", "jinja2", *SERVICES, *PLOTS),
    ),
    "a prediction": (PREDICT, (DYNAMO, TIMM, "pyarrow", "pydantic", *SERVICES, *PLOTS)),
    "planning, and a run of one worker": (TRAIN, (DYNAMO, TIMM, "ray", "mlflow", "openai", "optuna")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with ingested data: 4 classes of 6 clips."""
    root = tmp_path_factory.mktemp("imports")
    for name in ("driving car", "flying kite", "lifting box", "picking flower"):
        (root / "videos" / name).mkdir(parents=True)
        for clip in range(6):
            (root / "videos" / name / f"{clip}.mp4").write_text(f"{name} {clip}")
    settings = DecodeSettings(frames=4, size=48, pool=1)
    with in_process() as runner:
        runner.ingest(root / "videos", root / "data", settings, decode="tests.helpers.fake_decoders:fitting")
    return root


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_loads_nothing_heavy_that_it_does_not_use(entry, folder):
    code, forbidden = ENTRIES[entry]
    arguments = [f"pipelines.{script}" for script in SCRIPTS] if code == HELP else [str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", code + REPORT, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & set(forbidden)
