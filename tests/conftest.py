"""Fixtures that several test modules share: the data pack, one local Ray a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With pytest-xdist, tests that need Ray share one process and its Ray, and begin first: they take longest."""
    with_ray = [item for item in items if item.get_closest_marker("ray") or "ray_session" in item.fixturenames]
    for item in with_ray:
        item.add_marker(pytest.mark.xdist_group("ray"))
    items.sort(key=lambda item: item not in with_ray)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real label lists, split lists, descriptions and clips; they are not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the pack of real lists and clips is not beside this checkout ({SHARED_DATA})")
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
    from pipelines.data.toyworld import write_video

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
