"""Seconds and peak memory of a search in a million stored features on one core, beside a bare matrix product.

python benchmarks/search.py [--rows 1000000] [--dim 512] [--folder DIR]

The features lie in files of 100,000 rows, as predict.py writes them, a tenth of a percent of them failed. Each
measurement has its own process; the bare product is that of as many rows in memory. The claim: 2 s a query
and 2 GB at most.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SECONDS, GIGABYTES = 2.0, 2.0
ROWS_OF_PART = 100_000
DEFAULT_QUERIES = "1,10,100"


def main() -> None:
    """Write the features, then measure in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", default=DEFAULT_QUERIES)
    parser.add_argument("--folder", type=Path, help="keep the features here, or measure those that are here")
    parser.add_argument("--measure", choices=("write", "bare", "search"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure == "write":
        write(args.folder, args.rows, args.dim)
        return
    if args.measure == "bare":
        print(f"{bare(args.rows, args.dim):.3f}")
        return
    if args.measure == "search":
        search(args.folder, int(args.queries), args.rows)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "embeddings.json").is_file():
            measured("--measure", "write", "--folder", folder, "--rows", args.rows, "--dim", args.dim)
        cpu = float(measured("--measure", "bare", "--rows", args.rows, "--dim", args.dim))
        print(f"bare product of {args.rows:,} x {args.dim} with 1 query: {cpu:.2f} s of one core")
        for queries in args.queries.split(","):
            found = measured(
                "--measure", "search", "--queries", queries, "--folder", folder, "--rows", args.rows
            ).split()
            cpu_search, wall, peak = map(float, found)
            each = cpu_search / int(queries)
            ok = each <= SECONDS and peak <= GIGABYTES
            print(
                f"search, {queries} queries: {cpu_search:.2f} s of one core ({wall:.2f} s by the clock), "
                f"{each:.2f} s a query, {cpu_search / (cpu * int(queries)):.1f} times the bare product, "
                f"peak {peak:.2f} GB ({'ok' if ok else 'OVER'}; at most {SECONDS:.0f} s a query and {GIGABYTES:.0f} GB)"
            )


def measured(*arguments: object) -> str:
    """Run this file on one core; return what it prints."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **ONE})
    return done.stdout.strip()


def write(folder: Path, rows: int, dim: int) -> None:
    """Write random features in parts."""
    import json

    import numpy as np
    import pyarrow as pa
    from pyarrow import ipc

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    texts = ("model", "run", "adapter_sha256", "backbone", "weights_digest")
    for number, start in enumerate(range(0, rows, ROWS_OF_PART)):
        count = min(ROWS_OF_PART, rows - start)
        features = generator.standard_normal((count, dim), dtype=np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        failed = np.arange(count) % 1000 == 999
        lists = pa.FixedSizeListArray.from_arrays(features.reshape(-1), dim, mask=pa.array(failed))
        table = pa.table(
            {
                "video": [f"/data/videos/of/a/library/video_{start + i:08d}.mp4" for i in range(count)],
                "start": pa.nulls(count, pa.float64()),
                "end": pa.nulls(count, pa.float64()),
                "status": np.where(failed, "failed", "ok"),
                "reason": np.where(failed, "truncated", ""),
                "feature": lists,
            }
        )
        with ipc.new_file(folder / f"part-{number:06d}.arrow", table.schema) as part:
            part.write_table(table, max_chunksize=8192)
    about = {"schema": 1, **dict.fromkeys(texts, "random"), "dim": dim, "dtype": "float32", "normalised": True}
    (folder / "embeddings.json").write_text(json.dumps({**about, "views": {}}))


def bare(rows: int, dim: int) -> float:
    """Return the seconds of one core of the plain product of all rows with a query."""
    import numpy as np

    features = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
    query = np.ones(dim, np.float32)
    started = time.process_time()
    _ = features @ query
    return time.process_time() - started


def search(folder: Path, queries: int, rows: int) -> None:
    """Print seconds of one core, seconds by the clock, and the peak memory in GB."""
    import numpy as np
    import pyarrow as pa

    from pipelines.prediction.search import rank
    from pipelines.prediction.stored_features import open_embeddings

    pa.set_cpu_count(1)
    features = open_embeddings(folder)
    texts = np.random.default_rng(1).standard_normal((queries, features.identity.dim), dtype=np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    cpu, wall = time.process_time(), time.perf_counter()
    found = rank(features, texts)
    seconds = time.process_time() - cpu, time.perf_counter() - wall
    assert found.searched + found.failed == rows
    assert len(found.hits[0]) == 10
    print(*(f"{value:.3f}" for value in seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


if __name__ == "__main__":
    main()
