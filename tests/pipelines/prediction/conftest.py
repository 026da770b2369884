"""A tiny model in a run's folder."""

from __future__ import annotations

import pytest

from vlmodels.checkpoint import save_adapter
from vlmodels.clip import create
from vlmodels.methods.zeroshot import ZeroShot


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "run"
    folder.mkdir()
    save_adapter(folder, ZeroShot(create("toy", weights="toy", num_frames=4), ZeroShot.Config()))
    return folder
