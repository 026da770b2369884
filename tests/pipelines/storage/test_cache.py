"""Single files and runs in a store, and how tested data are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.planning import sources, start
from pipelines.storage.cache import local_file, local_run
from pipelines.storage.place import Place
from vlmodels.errors import UserError


def test_a_single_file(s3, tmp_path):
    local = tmp_path / "a.sqlite"
    local.write_bytes(b"one")
    assert local_file(local) == local
    (Place.open(s3) / "a.sqlite").write(b"two")
    copy = local_file(f"{s3}/a.sqlite")
    assert (copy.name, copy.read_bytes()) == ("a.sqlite", b"two")
    before = copy.stat()
    assert local_file(f"{s3}/a.sqlite") == copy
    assert copy.stat() == before  # not fetched again
    with pytest.raises(UserError, match=rf"{s3}/b.sqlite: no such file"):
        local_file(f"{s3}/b.sqlite")


def test_a_run(s3):
    assert local_run("models:/a@b") == "models:/a@b"
    for name in ("run.json", "adapter.safetensors", "predictions.npz", "report/report.html"):
        (Place.open(s3) / name).write(b"1")
    copy = Path(local_run(s3))
    assert sorted(path.name for path in copy.iterdir()) == ["adapter.safetensors", "run.json"]
    assert start.start_file(s3) == copy / "adapter.safetensors"
    with pytest.raises(UserError, match=rf"{s3}/report: no run there; give the folder of one run"):
        start.start_file(f"{s3}/report")


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ("a=b", ("a", "b")),
        ("s3://b/a?x=1", ("", "s3://b/a?x=1")),
        ("n=s3://b?x=1", ("n", "s3://b?x=1")),
        ("b", ("", "b")),
    ],
)
def test_names_of_tested_data(item, named):
    assert sources.named_test(item) == named
