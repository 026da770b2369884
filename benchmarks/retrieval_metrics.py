"""Seconds and peak memory of the retrieval metrics, each size in its own process.

python benchmarks/retrieval_metrics.py [--videos 10000] [--captions 1]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

LIMIT = 2.0  # GiB


def main() -> None:
    """Print a line for one caption per video, and one for twenty captions per video with a tenth of the videos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int)
    parser.add_argument("--captions", type=int, default=1)
    args = parser.parse_args()
    if args.videos:
        measure(args.videos, args.captions)
        return
    for videos, captions in ((10_000, 1), (1_000, 20)):
        subprocess.run(
            [sys.executable, __file__, "--videos", str(videos), "--captions", str(captions)],
            check=True,
        )


def measure(videos: int, captions: int) -> None:
    """Rank random features of 512 dimensions; print seconds and peak memory."""
    import numpy as np

    from pipelines.evaluation.ranking import retrieval_metrics

    rng = np.random.default_rng(0)
    video = rng.standard_normal((videos, 512), dtype=np.float32)
    owner = np.repeat(np.arange(videos), captions)
    text = video[owner] + 8 * rng.standard_normal((len(owner), 512), dtype=np.float32)
    video, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (video, text))
    started = time.perf_counter()
    found = retrieval_metrics(video, text, owner)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{videos} videos x {len(owner)} captions: {seconds:.1f} s, peak {peak:.2f} GiB "
        f"({'ok' if peak <= LIMIT else 'OVER'}; target <= {LIMIT:.0f}), R@1 {found['t2v']['R@1']:.1f}"
    )


if __name__ == "__main__":
    main()
