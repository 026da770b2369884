"""Opening folders of embeddings: what is wrong with one is said in one line."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from pipelines.prediction.stored_features import open_embeddings
from tests.helpers.feature_folders import unit, write_about, write_part, write_table
from vlmodels.errors import UserError

ROWS = [("v.mp4", None, None, unit(np.ones(4)))]


def test_it_says_whose_features_they_are(tmp_path):
    write_about(tmp_path, 4)
    write_part(tmp_path, 0, ROWS, 4)
    found = open_embeddings(tmp_path)
    assert (found.identity.dim, found.identity.run, len(found.parts)) == (4, "toy", 1)


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
    write_part(tmp_path, 1, [("v.mp4", None, None, unit(np.ones(5)))], 5)
    write_table(tmp_path / "part-000002.arrow", pa.table({"video": ["a"]}))
    damaged = open_embeddings(tmp_path).damaged
    assert "not 4 float32" in damaged["part-000001.arrow"]
    assert "no column 'start'" in damaged["part-000002.arrow"]
