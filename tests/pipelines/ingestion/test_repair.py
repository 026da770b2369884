"""An ingest makes what is lost or damaged of an earlier one again, and keeps the rest."""

from __future__ import annotations

import json
import os

import pyarrow.parquet as pq
import pytest

from pipelines.ingestion.decode import DecodeSettings
from pipelines.shards.clip_store import ClipStore
from pipelines.shards.index import Index
from pipelines.storage.files import file_sha256
from tests.helpers.list_files import put
from vlmodels.errors import UserError

OTHER = DecodeSettings(frames=4, size=16, pool=1)


def test_a_shard_that_is_lost_or_cut_is_made_again(here, videos, tmp_path):
    out = tmp_path / "out"
    first = here.ingest(videos, out)
    lost, cut, *_ = Index.read(out).shards
    (out / "shards" / lost.file).unlink()
    os.truncate(out / "shards" / cut.file, cut.bytes // 2)
    said = []
    again = here.ingest(videos, out, say=said.append)
    assert again.decoded == lost.rows + cut.rows
    assert again.digest == first.digest
    cut_to = f"{cut.file} has {cut.bytes // 2} bytes instead of {cut.bytes}"
    assert said == [f"{out}/shards: {lost.file} is missing, {cut_to}; their clips are decoded again"]


def test_a_manifest_of_another_ingest_is_named(here, videos, tmp_path):
    out, other, said = tmp_path / "out", tmp_path / "other", []
    first = here.ingest(videos, out)
    put(tmp_path / "others" / "class 0" / "x.mp4", b"x")
    here.ingest(tmp_path / "others", other)
    (out / "manifest.parquet").write_bytes((other / "manifest.parquet").read_bytes())
    again = here.ingest(videos, out, say=said.append)
    assert (again.decoded, again.digest) == (20, first.digest)
    assert said[0].startswith(f"{out}/manifest.parquet is of another ingest")


def test_an_index_without_hash_whose_classes_have_changed_is_named(here, videos, tmp_path):
    out, said = tmp_path / "out", []
    first = here.ingest(videos, out)
    as_before(out)
    plain = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps(plain | {"classes": plain["classes"][::-1]}))
    again = here.ingest(videos, out, say=said.append)
    assert (again.decoded, again.digest) == (0, first.digest)
    assert [line.split(":")[0] for line in said] == [f"{out}/index.json is damaged"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def test_a_shard_with_a_flipped_bit_is_made_again(here, videos, tmp_path):
    out, said = tmp_path / "out", []
    first = here.ingest(videos, out)
    shard = Index.read(out).shards[0]
    flip(out / "shards" / shard.file)
    again = here.ingest(videos, out, say=said.append)
    assert (again.decoded, again.digest) == (shard.rows, first.digest)
    assert said == [f"{out}/shards/{shard.file} is damaged; its clips are decoded again"]
    ClipStore(out).verify()
    assert here.ingest(videos, out, verify=True).decoded == 0


@pytest.mark.parametrize(
    "damage", [zero, flip, lambda path: path.write_bytes(b"[]"), lambda path: path.write_bytes(b"")]
)
@pytest.mark.parametrize("lost", ["manifest.parquet", "index.json"])
def test_a_damaged_manifest_or_index_is_made_again(here, videos, tmp_path, damage, lost):
    out, said = tmp_path / "out", []
    first = here.ingest(videos, out)
    damage(out / lost)
    again = here.ingest(videos, out, say=said.append)
    assert again.digest == first.digest
    if said or damage is not flip:  # the bit may be one of a label, which is written again in any case
        assert f"{lost} is damaged" in said[0]
        assert again.decoded == (0 if lost == "index.json" else 20)
    assert len(ClipStore(out)) == 19
    assert here.ingest(videos, out).decoded == 0
    damage(out / lost)
    with pytest.raises(UserError, match="other settings"):  # the settings are not lost with one of the two
        here.ingest(videos, out, OTHER)


def test_what_an_earlier_version_left_is_kept(here, videos, tmp_path):
    """It has no settings in its tables, and no hashes in these and in its index."""
    out, said = tmp_path / "out", []
    first = here.ingest(videos, out)
    as_before(out)
    assert len(ClipStore(out)) == 19
    again = here.ingest(videos, out, say=said.append)
    assert (again.decoded, again.digest, said) == (0, first.digest, [])
    as_before(out)
    flip(out / "manifest.parquet")
    again = here.ingest(videos, out, say=said.append)
    assert (again.decoded, again.digest) == (20, first.digest)
    assert "manifest.parquet is damaged" in said[0]
    as_before(out)
    zero(out / "index.json")  # nothing else tells the settings
    again = here.ingest(videos, out, say=said.append)
    assert (again.decoded, again.digest) == (20, first.digest)
    assert "nothing says with which settings" in said[-1]


def as_before(out):
    """Write manifest and index as the first version did."""
    pq.write_table(pq.read_table(out / "manifest.parquet").replace_schema_metadata(None), out / "manifest.parquet")
    plain = json.loads((out / "index.json").read_text())
    del plain["sha256"]
    plain["manifest_sha256"] = file_sha256(out / "manifest.parquet")
    (out / "index.json").write_text(json.dumps(plain))


@pytest.mark.parametrize(
    "damage", [zero, flip, lambda path: path.write_bytes(b"[]"), lambda path: path.write_bytes(b"")]
)
@pytest.mark.parametrize("kind", ["*.parquet", "settings.json"])
def test_a_damaged_part_or_setting_of_an_unfinished_ingest(here, videos, tmp_path, damage, kind):
    whole, out, said = here.ingest(videos, tmp_path / "whole"), tmp_path / "out", []
    with pytest.raises(KeyboardInterrupt):
        here.ingest(videos, out, run_batches=here.stopped_after(16))
    path = min((out / ".parts").glob(kind))
    damage(path)
    resumed = here.ingest(videos, out, say=said.append)
    assert resumed.digest == whole.digest
    assert resumed.kept >= 8
    assert len(ClipStore(out)) == 19
    if damage is not flip or kind == "*.parquet":
        assert f"{path} is damaged" in said[0]
