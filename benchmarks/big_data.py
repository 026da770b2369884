"""A data set as large as Kinetics-400 for checks that read no frames: a valid manifest and index with empty shards.

python benchmarks/big_data.py OUT [--train 234619] [--test 19760] [--classes 400]

The shards are sparse files of the right size, so a terabyte takes no disk space; names and labels are invented.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ingestion.decode import DecodeSettings
from pipelines.shards.index import MANIFEST, SHARDS, Index
from pipelines.shards.manifest import SCHEMA
from pipelines.shards.shard_file import Shard, ShardWriter
from pipelines.storage.files import file_sha256

ROWS = 64  # clips per shard, as ingest makes them from many videos
K400 = {"train": 234_619, "test": 19_760, "classes": 400}
SHAPE = (16, 256, 340, 3)  # 16 stored frames of the usual 4:3 video


def main() -> None:
    """Create the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for name, count in K400.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    args = parser.parse_args()
    make(args.out, train=args.train, test=args.test, classes=args.classes)


def make(
    out: Path,
    *,
    train: int,
    test: int,
    classes: int,
    shape: tuple[int, ...] = SHAPE,
    settings: DecodeSettings | None = None,
    filled: bool = False,
) -> Path:
    """Create in ``out`` what an ingest of ``train`` + ``test`` videos leaves.

    Args:
        out: the folder.
        train: number of training videos.
        test: number of test videos.
        classes: number of classes; the videos take turns.
        shape: stored frames of a clip: frames, height, width, channels.
        settings: the decoding that the index names; default: ``shape``'s number of frames, with a pool of 1.
        filled: fill the shards with noise instead of leaving them empty.
    """
    settings = settings or DecodeSettings(frames=shape[0], pool=1)
    (out / SHARDS).mkdir(parents=True)
    count = train + test
    names = [f"doing thing {number}" for number in range(classes)]
    labels = [names[i] for i in np.arange(count) % classes]
    uris = [f"{label}/v{number:06d}.mp4" for number, label in enumerate(labels)]
    files = [
        f"{hashlib.sha256(str(n).encode()).hexdigest()[:16]}-{'x'.join(map(str, shape[:3]))}.arrow"
        for n in range(-(-count // ROWS))
    ]
    columns = _columns(train, test, labels, uris, files)
    pq.write_table(pa.table(columns, schema=SCHEMA), out / MANIFEST)
    write = _write_noise if filled else _write_sparse
    shards = [
        write(out / SHARDS, file, columns["clip_id"][n * ROWS : (n + 1) * ROWS], shape) for n, file in enumerate(files)
    ]
    Index(
        decode=settings.to_json(),
        decode_digest=settings.digest,
        root=str(out),
        classes=tuple(names),
        shards=tuple(shards),
        digest=hashlib.sha256(repr((count, shape)).encode()).hexdigest(),
        manifest_sha256=file_sha256(out / MANIFEST),
        code_version="0",
    ).write(out)
    return out


def _columns(train: int, test: int, labels: list[str], uris: list[str], files: list[str]) -> dict[str, Any]:
    """Invent the manifest's columns for decoded videos without errors."""
    count = train + test
    return {
        "clip_id": [hashlib.sha256(uri.encode()).hexdigest()[:16] for uri in uris],
        "uri": uris,
        "path": uris,
        "label": labels,
        "group": uris,
        "split": ["train"] * train + ["test"] * test,
        "start_s": [None] * count,
        "end_s": [None] * count,
        "bytes": [1_000_000] * count,
        "mtime_ns": [0] * count,
        "sha256": [hashlib.sha256(b"file" + uri.encode()).hexdigest() for uri in uris],
        "width": [340] * count,
        "height": [256] * count,
        "fps": [30.0] * count,
        "n_frames": [300] * count,
        "decoder": ["decord"] * count,
        "status": ["ok"] * count,
        "error": [""] * count,
        "shard": [files[n // ROWS] for n in range(count)],
        "row": (np.arange(count) % ROWS).astype(np.int32),
    }


def _write_sparse(folder: Path, file: str, clips: Sequence[str], shape: tuple[int, ...]) -> Shard:
    size = len(clips) * (int(np.prod(shape)) + 1024)  # each record batch has a header
    with (folder / file).open("wb") as sparse:
        sparse.truncate(size)
    return Shard(file, len(clips), shape, size, hashlib.sha256(file.encode()).hexdigest())


def _write_noise(folder: Path, file: str, clips: Sequence[str], shape: tuple[int, ...]) -> Shard:
    writer, random = ShardWriter(folder, file.partition("-")[0]), np.random.default_rng(0)
    for clip in clips:
        writer.add(clip, random.integers(0, 256, shape, dtype=np.uint8))
    return writer.close()[0]


if __name__ == "__main__":
    main()
