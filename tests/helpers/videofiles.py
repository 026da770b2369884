"""Makes small video files for tests, whose frames carry their number and which way is up."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def picture(index: int, width: int, height: int) -> np.ndarray:
    """Frame ``index``: its number in binary, as eight cells in the lower half; the left upper quarter is green."""
    frame = np.full((height, width, 3), 40, np.uint8)
    for bit in range(8):
        frame[height // 2 :, bit * width // 8 : (bit + 1) * width // 8] = 220 if index >> bit & 1 else 20
    frame[: height // 2, : width // 2] = (30, 200, 30)
    return frame


def write_video(
    path: Path,
    frames: int = 40,
    width: int = 64,
    height: int = 48,
    codec: str = "libx264",
    rate: int = 25,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - as PyAV calls it
) -> Path:
    """Write ``frames`` pictures to ``path``, in the container ``format``, else in that which its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=format, options=container or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def write_audio(path: Path, seconds: float = 0.5) -> Path:
    """Write a file with a silent audio track and no video."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, int(seconds * 16000), 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def turn(path: Path, degrees: int) -> Path:
    """Set the display rotation (90, 180, 270) of an mp4: rewrites the matrix in its ``tkhd`` box."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 52 if data[at] else 40  # version 1 has 64-bit times
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    return path


def truncate(path: Path, keep: float) -> Path:
    """Cut the file to this part of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def drop_frames(path: Path, dropped: set[int], *, index: bool = True) -> Path:
    """Empty the chunks of these frames of an AVI without sound, as a recorder does that drops frames."""
    data = path.read_bytes()
    at = data.index(b"movi") + 4
    chunks, entries = b"", b""
    number = 0
    while data[at : at + 2] == b"00":
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        content = b"" if number in dropped else data[at + 8 : at + 8 + size]
        place = (4 + len(chunks)).to_bytes(4, "little")
        entries += data[at : at + 4] + (16).to_bytes(4, "little") + place + len(content).to_bytes(4, "little")
        chunks += data[at : at + 4] + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)
        at += 8 + size + size % 2
        number += 1
    head = data[: data.index(b"movi") - 8]
    body = b"LIST" + (4 + len(chunks)).to_bytes(4, "little") + b"movi" + chunks
    body += b"idx1" + len(entries).to_bytes(4, "little") + entries if index else b""
    path.write_bytes(b"RIFF" + (len(head) - 8 + len(body)).to_bytes(4, "little") + head[8:] + body)
    return path


def numbers(frames: np.ndarray) -> list[int]:
    """Return which picture each of the frames ``[P, H, W, 3]`` shows."""
    height, width = frames.shape[1:3]
    cells = frames[:, height * 3 // 4, [(2 * bit + 1) * width // 16 for bit in range(8)], 1] > 120
    return [int(number) for number in cells @ (1 << np.arange(8))]
