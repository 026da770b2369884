"""Fixtures that several test modules share: the data pack, one local Ray a session."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side, each with a thread per core, wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it for a job in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("no deadline", deadline=None)  # a busy machine must fail no test
settings.load_profile("no deadline")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(wrapper=True)  # so it comes before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Mark what needs Ray: ``make test`` runs it in one process, with one Ray, and all else in two."""
    for item in items:
        if "ray_session" in item.fixturenames:
            item.add_marker(pytest.mark.ray)
    yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep what tests remember of their files out of the user's cache."""
    os.environ["VIDADAPT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real label lists, split lists, descriptions and clips; they are not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the pack of real lists and clips is not next to this checkout ({SHARED_DATA})")
    return SHARED_DATA


@pytest.fixture(scope="session")
def ray_session():
    """One local Ray for all tests that need it."""
    import ray
    from ray.data import DataContext

    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=1 << 30, log_to_driver=False)
    DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def small_data(ray_session, tmp_path_factory):
    """Ingested data: 4 classes of 6 tiny videos each, in class folders."""
    import torch

    from pipelines import ingest
    from pipelines.toyworld.world import write_video

    root = tmp_path_factory.mktemp("small")
    for number, name in enumerate(("driving car", "flying kite", "lifting box", "picking flower")):
        folder = root / "videos" / name
        folder.mkdir(parents=True)
        for clip in range(6):
            colour = torch.tensor([60 * number, 200 - 50 * number, 40 * clip])
            noise = torch.randint(50, (16, 64, 64, 3), generator=torch.Generator().manual_seed(10 * number + clip))
            write_video((noise + colour).clamp(0, 255).to(torch.uint8), folder / f"{clip}.mp4")
    settings = ["--frames", "4", "--size", "48", "--pool", "1"]
    ingest.main(["--videos", str(root / "videos"), "--out", str(root / "data"), *settings])
    return root / "data"


@pytest.fixture(scope="session")
def s3_server():
    """One S3-compatible server for all tests that need it."""
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    from tests.helpers import s3_store

    with s3_store.serve() as server:
        yield server


@pytest.fixture
def s3(s3_server, tmp_path):
    """URI of a fresh folder in a store that the environment names; copies lie below ``tmp_path``."""
    from tests.helpers import s3_store

    # Not monkeypatch: a test's ``undo`` must not lead it to a store outside.
    with s3_store.environment(s3_server.environment | {"VIDADAPT_CACHE": str(tmp_path / "cache")}):
        yield f"s3://{s3_store.BUCKET}/{uuid.uuid4().hex}"
