"""Compare the readers of video files: are their frames right, and how fast are they?

    python -m benchmarks.decoders [--clips ../shared/data/clips] [--videos 16] [--rounds 3] [--seconds 40]

Right: every file of ``--clips``, where it is there, and toy videos in the usual codings are decoded whole with PyAV,
and eight spread frames of each with the other readers, whatever the file's header says of them. "wrong" counts files
that give other frames and no error; "of these used" those that ``read_clip`` would read so, and must be 0.
Fast: each reader, told to seek or to decode all, reads the same videos in turn; the best round counts. "8 spread": 8
frames of 10 s at 340x256; "dense pool": ingest's, of the same; "1080p": 8 frames of a long video. Each is a ratio to
PyAV in the same run. "MB": the most memory that a process has which reads the 1080p video, less what its imports take.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.ingest import make_videos
from pipelines.ingestion.decode import DecodeSettings
from vlmodels.readers import decord_reader, pyav_reader, torchcodec_reader
from vlmodels.readers.clip import ClipJob, Frames
from vlmodels.readers.header import read_header
from vlmodels.sampling import Indices, segment_indices
from vlmodels.video import VideoError

READERS = {"pyav": None, "decord": decord_reader, "torchcodec": torchcodec_reader}
TOYS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("h264.mp4", "libx264", {"g": "12", "bf": "2"}),
    ("h264.mkv", "libx264", {"g": "12", "bf": "2"}),
    ("h264.flv", "libx264", {"g": "12", "bf": "2"}),
    ("h264.avi", "libx264", {"g": "12", "bf": "2"}),
    ("h264.ts", "libx264", {"g": "12", "bf": "2"}),
    ("refresh.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=12"}),
    ("open.mkv", "libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3"}),
    ("hevc.mp4", "libx265", {"x265-params": "keyint=12:log-level=none"}),
    ("mpeg4.avi", "mpeg4", {"g": "12"}),
    ("bframes.avi", "mpeg4", {"g": "12", "bf": "2"}),
    ("bframes.mp4", "mpeg4", {"g": "12", "bf": "2"}),
    ("mpeg2.vob", "mpeg2video", {"g": "12", "bf": "2"}),
    ("mpeg2.mxf", "mpeg2video", {"g": "12"}),
    ("wmv2.wmv", "wmv2", {"g": "12"}),
    ("vp8.webm", "libvpx", {"deadline": "realtime", "g": "12"}),
    ("vp9.webm", "libvpx-vp9", {"deadline": "realtime", "g": "12"}),
    ("av1.mp4", "libsvtav1", {"g": "12", "preset": "12"}),
    ("mjpeg.mov", "mjpeg", {}),
    ("gif.gif", "gif", {}),
)


def spread(n_frames: int) -> Indices:
    """Return the numbers of 8 spread frames."""
    return segment_indices(n_frames, 8)


def dense(n_frames: int) -> Indices:
    """Return the frame numbers of ingest's dense pool, each once."""
    return np.unique(DecodeSettings(sampling="dense", stride=4).indices(n_frames))


def read(reader: str, path: Path, indices: Callable[[int], Indices]) -> Frames:
    """Read frames with a reader, whatever the header says of it.

    Raises:
        Exception: the reader cannot read the file; each has errors of its own.
    """
    job = ClipJob(path, read_header(path), indices, lambda frames: frames, threads=1, block_bytes=48 << 20)
    module = READERS[reader]
    frames, _ = pyav_reader.read(job) if module is None else module.read(module.load(), job)
    return frames


# ------------------------------------------------------------------------------------------------------ are they right


@dataclass
class Score:
    """Names of the files that a reader read rightly, or wrongly without an error."""

    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)


def compare(files: list[Path], readers: list[str]) -> tuple[int, dict[str, Score]]:
    """Compare frames with PyAV's full decode; return the number of files that PyAV decodes, and the scores."""
    scores = {reader: Score() for reader in readers}
    decoded = 0
    for path in files:
        try:
            whole = read("pyav", path, np.arange)
        except VideoError:
            continue
        decoded += 1
        expected = whole[spread(len(whole))]
        for reader, score in scores.items():
            try:
                frames = read(reader, path, spread)
            except Exception:  # noqa: BLE001 - whatever it is, the reader says that it cannot read the file
                continue
            same = frames.shape == expected.shape and np.array_equal(frames, expected)
            (score.right if same else score.wrong).append(path.name)
            if not same and reader in read_header(path).right_readers:
                score.used.append(path.name)
    return decoded, scores


def toys(folder: Path) -> Iterator[Path]:
    """Write a video of 80 frames in each coding that this FFmpeg can write."""
    random = np.random.default_rng(0)
    scene = random.integers(0, 255, (40, 60, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    pictures = [scene[i : i + 128, 2 * i : 2 * i + 160] for i in range(80)]
    for name, codec, options in TOYS:
        try:
            write(folder / name, codec, options, pictures)
        except av.codec.codec.UnknownCodecError:
            continue
        yield folder / name


def write(path: Path, codec: str, options: dict[str, str], pictures: list[Frames]) -> None:
    """Encode pictures at 25 frames per second."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        for picture in pictures:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        output.mux(stream.encode())


# ------------------------------------------------------------------------------------------------------ are they fast


def rates(paths: list[Path], indices: Callable[[int], Indices], readers: list[str], rounds: int) -> dict[str, float]:
    """Return each reader's clips per second; they take turns, a first round warms up, and the best round counts."""
    best = dict.fromkeys(readers, 0.0)
    for number in range(rounds + 1):
        for reader in readers:
            start = time.perf_counter()
            for path in paths:
                read(reader, path, indices)
            if number:
                best[reader] = max(best[reader], len(paths) / (time.perf_counter() - start))
    return best


def write_long(path: Path, seconds: int) -> None:
    """Write a 1080p video of moving texture at 30 frames per second, with a key frame each 2 seconds."""
    random = np.random.default_rng(0)
    scene = random.integers(0, 255, (150, 200, 3)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
    pictures = [scene[8 * i : 8 * i + 1080, 8 * i : 8 * i + 1920] for i in range(60)]
    write(path, "libx264", {"preset": "veryfast", "g": "60"}, (pictures + pictures[::-1]) * (seconds * 30 // 120))


def memory(reader: str, path: Path) -> float:
    """Return megabytes that reading 8 frames takes, in a process of its own."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from benchmarks.decoders import took; took({reader!r}, {str(path)!r})"
    )
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def took(reader: str, path: str) -> None:
    """Print the megabytes that reading 8 frames takes in this process."""
    module: Any = READERS[reader]
    if module is not None:
        module.load()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: imports have one of their own
    before = peak_kilobytes()
    read(reader, Path(path), spread)
    print((peak_kilobytes() - before) / 1024)


def peak_kilobytes() -> int:
    """Return the most memory that this process had since the peak was reset (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


# ---------------------------------------------------------------------------------------------------------- the table


def main() -> None:
    """Compare the readers that are installed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "clips")
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=40)
    args = parser.parse_args()

    readers = [name for name, module in READERS.items() if module is None or module.load() is not None]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("toys", "videos"):
            (folder / part).mkdir()
        real = sorted(args.clips.iterdir()) if args.clips.is_dir() else []
        decoded, scores = compare([*real, *toys(folder / "toys")], readers)
        paths = make_videos(folder / "videos", args.videos)
        write_long(folder / "long.mp4", args.seconds)
        speeds = {
            "8 spread": rates(paths, spread, readers, args.rounds),
            "dense pool": rates(paths, dense, readers, args.rounds),
            "1080p": rates([folder / "long.mp4"], spread, readers, args.rounds),
        }
        megabytes = {reader: memory(reader, folder / "long.mp4") for reader in readers}
    print("| reader | equal frames | wrong, of these used | " + " | ".join(speeds) + " | MB |")
    print("|---|---|---|" + "---|" * (len(speeds) + 1))
    for reader in readers:
        score = scores[reader]
        ratios = " | ".join(f"{speed[reader] / speed['pyav']:.2f}" for speed in speeds.values())
        wrong = f"{len(score.wrong)}, {len(score.used)}"
        print(f"| {reader} | {len(score.right)} of {decoded} | {wrong} | {ratios} | {megabytes[reader]:.0f} |")
    print("PyAV, clips/s: " + ", ".join(f"{name} {speed['pyav']:.1f}" for name, speed in speeds.items()))
    for reader in readers:
        if scores[reader].wrong:
            print(f"{reader} is wrong about: {', '.join(scores[reader].wrong)}")


if __name__ == "__main__":
    main()
