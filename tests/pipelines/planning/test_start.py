"""Where training starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.planning import start
from pipelines.storage.cache import local_run
from pipelines.storage.place import Place
from vlmodels.errors import UserError


def test_a_run_in_a_store_is_started_from(s3):
    for name in ("run.json", "adapter.safetensors", "predictions.npz", "report/report.html"):
        (Place.open(s3) / name).write(b"1")
    assert start.start_file(s3) == Path(local_run(s3)) / "adapter.safetensors"
    with pytest.raises(UserError, match=rf"{s3}/report: no run there; give the folder of one run"):
        start.start_file(f"{s3}/report")
