"""Ranking stored features: the same order as a whole matrix product, whatever the files look like."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.prediction.search import rank
from pipelines.prediction.stored_features import open_embeddings
from tests.helpers.feature_folders import table_of, unit, write_about, write_part, write_table
from vlmodels.errors import UserError

DIM = 12


def rows_of(count, *, failed=(), windows=False, seed=0):
    features = unit(np.random.default_rng(seed).standard_normal((count, DIM)))
    return [
        (
            f"v{n // 4 if windows else n}.mp4",
            float(n % 4) if windows else None,
            float(n % 4 + 2) if windows else None,
            None if n in failed else features[n],
        )
        for n in range(count)
    ]


def stored(folder, *parts, **options):
    write_about(folder, DIM)
    for number, rows in enumerate(parts):
        write_part(folder, number, rows, DIM, **options)
    return open_embeddings(folder)


def whole(rows, query, every_window=True):
    """(video, start) by falling score, by the plain product."""
    there = [row for row in rows if row[3] is not None]
    scores = np.stack([row[3] for row in there]).astype(np.float64) @ query
    ordered = [there[n] for n in np.argsort(-scores, kind="stable")]
    if not every_window:
        first = {}
        for row in ordered:
            first.setdefault(row[0], row)
        ordered = list(first.values())
    return [row[:2] for row in ordered]


@pytest.mark.parametrize("rows_at_once", [7, 8192])
@pytest.mark.parametrize("every_window", [True, False])
def test_the_order_is_that_of_the_whole_product(tmp_path, rows_at_once, every_window):
    parts = [rows_of(50, failed={3, 4, 17, 49}, windows=True), rows_of(33, seed=1, windows=True), rows_of(20, seed=2)]
    embeddings = stored(tmp_path, *parts, rows_at_once=rows_at_once)
    queries = unit(np.random.default_rng(5).standard_normal((9, DIM)))
    found = rank(embeddings, queries, 13, every_window=every_window)
    everything = [row for rows in parts for row in rows]
    for query, hits in zip(queries, found.hits, strict=True):
        assert [(hit.video, hit.start) for hit in hits] == whole(everything, query, every_window)[:13]
    assert (found.searched, found.failed, found.broken, found.damaged) == (99, 4, 0, {})


def test_equal_ones_are_in_the_order_of_the_folder(tmp_path):
    feature = unit(np.random.default_rng(1).standard_normal(DIM))
    rows = [(f"v{n}.mp4", None, None, feature) for n in range(3000)]
    hits = rank(stored(tmp_path, rows[:1234], rows[1234:]), feature[None], 5).hits[0]
    assert [hit.video for hit in hits] == [f"v{n}.mp4" for n in range(5)]
    assert hits[0].score == pytest.approx(1)


def test_features_that_are_no_features_are_left_out_and_counted(tmp_path):
    rows = rows_of(40)
    for number, wrong in ((3, np.full(DIM, np.nan)), (9, np.full(DIM, np.inf)), (20, 50 * rows[20][3])):
        rows[number] = (*rows[number][:3], wrong)
    found = rank(stored(tmp_path, rows), rows[0][3][None], 100)
    assert (found.searched, found.broken) == (37, 3)
    assert not {"v3.mp4", "v9.mp4", "v20.mp4"} & {hit.video for hit in found.hits[0]}
    assert len(found.hits[0]) == 37


def test_a_damaged_part_is_named_and_the_rest_is_searched(tmp_path):
    parts = [rows_of(400, seed=seed) for seed in range(4)]
    paths = stored(tmp_path, *parts, rows_at_once=100).parts
    paths[0].write_bytes(paths[0].read_bytes()[:-100])
    data = bytearray(paths[2].read_bytes())
    place = data.find(b"v200.mp4")  # of the third batch: the lengths before its names
    data[place - 60 : place] = b"\xff" * 60
    paths[2].write_bytes(bytes(data))
    (tmp_path / "part-000009.arrow").write_text("<html>")
    found = rank(open_embeddings(tmp_path), parts[1][0][3][None], 3)
    assert {"part-000000.arrow", "part-000009.arrow", "part-000002.arrow"} == set(found.damaged)
    assert found.hits[0][0].score == pytest.approx(1)
    assert 800 < found.searched < 1200  # two parts whole, and one up to its damage


def test_a_row_whose_status_contradicts_its_feature_is_damage(tmp_path):
    write_about(tmp_path, DIM)
    table = table_of(rows_of(3), DIM)
    place = table.schema.get_field_index("status")
    write_table(tmp_path / "part-000000.arrow", table.set_column(place, "status", [["ok", "failed", "ok"]]))
    assert (
        "failed and has one" in rank(open_embeddings(tmp_path), unit(np.ones((1, DIM))), 3).damaged["part-000000.arrow"]
    )


def test_many_queries_at_once_find_what_each_finds_alone(tmp_path):
    embeddings = stored(tmp_path, rows_of(200, windows=True))
    queries = unit(np.random.default_rng(5).standard_normal((2100, DIM)))
    together = rank(embeddings, queries, 3).hits
    assert len(together) == 2100
    for number in (0, 1023, 1024, 2099):
        assert together[number] == rank(embeddings, queries[number : number + 1], 3).hits[0]


@pytest.mark.parametrize(
    ("queries", "topk", "said"),
    [
        (np.ones((1, 3), np.float32), 1, "12 numbers"),
        (np.full((1, DIM), np.nan, np.float32), 1, "not finite"),
        (np.ones((1, DIM), np.float32), 0, "1 or more"),
    ],
)
def test_wrong_queries_are_refused(tmp_path, queries, topk, said):
    with pytest.raises(UserError, match=said):
        rank(stored(tmp_path, rows_of(3)), queries, topk)


def test_a_folder_without_any_feature_has_no_hits(tmp_path):
    found = rank(stored(tmp_path, rows_of(3, failed={0, 1, 2})), unit(np.ones((1, DIM))), 3)
    assert (found.hits, found.failed) == (((),), 3)
