"""Clips per second of ingest against a bare decord loop on the same videos.

    python benchmarks/ingest.py [--clips 48] [--rounds 3]

"bare" is a loop written by hand in one process: open, ``get_batch``, the same resize, ``np.save``. "ours" is the work
of one ingest worker, as Ray runs it: a decoding child process with a time limit, checks against the header, SHA-256 of
every video and shard, shard and part files. Both write to the same file system. The first round warms up, the start of
Ray and of the child does not count, both take turns, and the best round of each counts. ``cpu`` compares the processor
time of all processes instead of the wall time.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from pipelines.ingestion.batch import Batch, VideoSource
from pipelines.ingestion.batch_task import decode_batch
from pipelines.ingestion.decode import DecodeSettings
from pipelines.ingestion.destination import Destination
from pipelines.ingestion.isolation import IsolatedDecoder


def make_videos(folder: Path, count: int, seconds: int = 10) -> list[Path]:
    """Write H.264 videos of 340x256 pixels at 30 frames/s with moving texture and camera noise, about 500 kB each."""
    paths = []
    for number in range(count):
        random = np.random.default_rng(number)
        scene = random.integers(0, 255, (48, 64, 3)).repeat(16, 0).repeat(16, 1).astype(np.int16)
        noise = random.normal(0, 6, (31, 256, 340, 3)).astype(np.int16)
        path = folder / f"{number}.mp4"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=30, options={"crf": "19", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
            for index in range(seconds * 30):
                x, y = index % 600, index // 2 % 400
                picture = scene[y : y + 256, x : x + 340] + noise[index % 31]
                frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
        paths.append(path)
    return paths


def bare(paths: list[Path], out: Path) -> None:
    """Decode the videos in a loop written by hand."""
    import torch  # must be imported before decord
    from torch.nn import functional

    import decord  # isort: skip

    offsets = (0.125, 0.375, 0.5, 0.625, 0.875)
    for path in paths:
        reader = decord.VideoReader(str(path), num_threads=1)
        indices = [int((i + o) * len(reader) / 8) for i in range(8) for o in offsets]
        frames = torch.from_numpy(reader.get_batch(indices).asnumpy()).permute(0, 3, 1, 2)[..., 4:251, :]
        sized = functional.interpolate(frames, size=(256, 352), mode="bilinear", antialias=True)
        np.save(out / f"{path.stem}.npy", sized.permute(0, 2, 3, 1).contiguous().numpy())


def cpu_seconds(decoder: IsolatedDecoder) -> float:
    """Return the processor time (s) of this process and of its decoding child, if there is one."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    own = usage.ru_utime + usage.ru_stime
    if decoder.pid is None:
        return own
    fields = Path(f"/proc/{decoder.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return own + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(side: str, paths: list[Path], folder: Path, settings: DecodeSettings) -> tuple[float, float]:
    """Decode the videos once, "bare" or as "ours"; return wall and processor seconds."""
    batch = Batch("0123456789abcdef", "", tuple(VideoSource(path.stem, str(path)) for path in paths))
    decoder = IsolatedDecoder("pipelines.ingestion.decode:decode_clip", settings, settings.largest, 60)
    if side == "ours":
        list(decoder([str(paths[0])]))  # starts the child
    cpu_start, start = cpu_seconds(decoder), time.perf_counter()
    if side == "bare":
        bare(paths, folder / "bare")
    else:
        facts = decode_batch(batch, Destination(folder / "ours"), decoder)
        assert {one.status for one in facts} == {"ok"}
    seconds = time.perf_counter() - start, cpu_seconds(decoder) - cpu_start
    decoder.close()
    return seconds


def main() -> None:
    """Make videos, decode them both ways in turn, and print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    settings = DecodeSettings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("videos", "bare", "ours/shards", "ours/.parts"):
            (folder / part).mkdir(parents=True)
        paths = make_videos(folder / "videos", args.clips)
        size = sum(path.stat().st_size for path in paths) / len(paths)
        print(f"{len(paths)} videos of {size / 1000:.0f} kB")
        wall: dict[str, list[float]] = {"bare": [], "ours": []}
        cpu: dict[str, list[float]] = {"bare": [], "ours": []}
        for number in range(args.rounds + 1):
            for side in ("bare", "ours"):
                wall_seconds, processor_seconds = measure(side, paths, folder, settings)
                if number:  # the first round warms up
                    wall[side].append(wall_seconds)
                    cpu[side].append(processor_seconds)
        for label, times in (("wall", wall), ("cpu", cpu)):
            best = {side: min(values) for side, values in times.items()}
            rates = ", ".join(f"{side} {len(paths) / seconds:.1f} clips/s" for side, seconds in best.items())
            print(f"{label}: {rates}; ours/bare = {best['bare'] / best['ours']:.2f}")


if __name__ == "__main__":
    main()
