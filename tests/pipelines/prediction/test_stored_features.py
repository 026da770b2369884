"""Opening folders of embeddings: what is wrong with one is said in one line."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pipelines.prediction.plain_pages import plain_column
from pipelines.prediction.stored_features import open_embeddings
from tests.helpers.feature_folders import PLAIN, table_of, unit, write_about, write_part
from vlmodels.errors import UserError

ROWS = [("v.mp4", None, None, unit(np.ones(4)))]


def test_it_says_whose_features_they_are(tmp_path):
    write_about(tmp_path, 4)
    write_part(tmp_path, 0, ROWS, 4)
    found = open_embeddings(tmp_path)
    assert (found.identity.dim, found.identity.run, found.rows) == (4, "toy", 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "damaged"),
        ("[1]", "another version"),
        (json.dumps({"schema": 2}), "another version"),
        (json.dumps({"schema": 1, "dim": 4}), "adapter_sha256"),
        (None, "no embeddings.json"),
    ],
)
def test_a_wrong_description_is_named(tmp_path, content, said):
    write_part(tmp_path, 0, ROWS, 4)
    if content is not None:
        (tmp_path / "embeddings.json").write_text(content)
    with pytest.raises(UserError, match=said):
        open_embeddings(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        open_embeddings(tmp_path / "none")


@pytest.mark.parametrize("dim", [0, 1, -3, 10**9, "4", None])
def test_an_impossible_length_is_named(tmp_path, dim):
    write_about(tmp_path, dim)
    with pytest.raises(UserError, match="dim"):
        open_embeddings(tmp_path)


def test_parts_of_other_columns_are_damaged(tmp_path):
    write_about(tmp_path, 4)
    with pytest.raises(UserError, match="no part"):
        open_embeddings(tmp_path)
    write_part(tmp_path, 0, ROWS, 4)
    write_part(tmp_path, 1, [("v.mp4", None, None, unit(np.ones(5)))], 5, size=5)
    parquet.write_table(pa.table({"video": ["a"]}), tmp_path / "part-000002.parquet")
    damaged = open_embeddings(tmp_path).damaged
    assert "not 4 float32" in damaged["part-000001.parquet"]
    assert "no column 'start'" in damaged["part-000002.parquet"]


def test_plain_pages_are_found_where_they_are_plain(tmp_path):
    table = table_of(ROWS * 10, 4)
    for options, plain in ((PLAIN, True), ({"compression": "snappy"}, False), ({"compression": "none"}, False)):
        parquet.write_table(table, tmp_path / "a.parquet", **options)
        found = plain_column(tmp_path / "a.parquet", parquet.read_metadata(tmp_path / "a.parquet"), "feature", 4)
        assert (found is not None) == plain
