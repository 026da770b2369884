"""Pictures too large for this machine's memory are refused before they are decoded."""

from __future__ import annotations

import resource
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.helpers.videofiles import truncate, write_video
from vlmodels.readers.container import MAX_PIXELS
from vlmodels.readers.header import read_header
from vlmodels.sampling import segment_indices
from vlmodels.video import VideoError, read_clip

MEGABYTE = 1 << 20
FAST = {"preset": "ultrafast", "tune": "zerolatency", "g": "1"}


def middle(n):
    return segment_indices(n, 8)


def packets(codec, width, height, frames, options=None, pixels="yuv420p"):
    """Encode gray pictures."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = width, height, pixels, Fraction(1, 25)
    context.options = options or {}
    frame = av.VideoFrame(width, height, pixels)
    for plane in frame.planes:
        plane.update(bytes([90]) * plane.buffer_size)
    encoded = []
    for number in range(frames):
        frame.pts = number
        encoded += [bytes(packet) for packet in context.encode(frame)]
    return encoded + [bytes(packet) for packet in context.encode()]


def peak():
    """Bytes of memory that this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_the_bomb_beside_this_project(shared_data):
    before = peak()
    with pytest.raises(VideoError, match="16000x16000 pixels are over the limit of 67 million"):
        read_clip(shared_data / "faults" / "bomb_16000x16000.mp4", middle)
    assert peak() - before < 300 * MEGABYTE


@pytest.mark.parametrize(
    ("suffix", "codec", "options", "pixels"),
    [("gif", "gif", {}, "gray"), ("png", "apng", {}, "gray"), ("h264", "libx264", FAST, "yuv420p")],
)
def test_no_format_has_larger_pictures(tmp_path, suffix, codec, options, pixels):
    path, side = tmp_path / f"a.{suffix}", 9000
    assert side * side > MAX_PIXELS
    if suffix == "h264":
        path.write_bytes(b"".join(packets(codec, side, side, 2, options)))
    else:
        with av.open(str(path), "w", format="apng" if suffix == "png" else None) as output:
            stream = output.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = side, side, pixels
            for number in range(2):
                frame = av.VideoFrame(side, side, pixels)
                frame.planes[0].update(bytes(frame.planes[0].buffer_size))
                frame.pts = number
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    with pytest.raises(VideoError, match="67 million"):
        read_clip(path, middle)


@pytest.mark.parametrize("sparse", [0, 1000], ids=["seeking", "plain"])
def test_pictures_that_outgrow_the_header_are_damage(tmp_path, sparse):
    small = packets("libx264", 64, 48, 60, FAST)
    raw = tmp_path / "a.h264"
    raw.write_bytes(b"".join(small[:30] + packets("libx264", 9000, 9000, 1, FAST) + small[30:]))
    remux(raw, tmp_path / "a.mp4")
    for path in (raw, tmp_path / "a.mp4"):
        with pytest.raises(VideoError, match="damaged: 30 of 61 frames"):
            read_clip(path, middle, sparse=sparse)


def remux(source, target):
    with av.open(str(source)) as file, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(file.streams.video[0])
        stream.time_base = Fraction(1, 25)
        for number, packet in enumerate(file.demux(video=0)):
            if packet.size:
                packet.stream, packet.time_base = stream, Fraction(1, 25)  # a raw stream has no times
                packet.pts = packet.dts = number
                output.mux(packet)


def test_a_header_that_promises_millions_of_frames(tmp_path):
    path = write_video(tmp_path / "a.avi", 40, codec="mpeg4", options={"g": "1"})
    data = path.read_bytes()
    at = data.index(b"vids") + 32  # AVIStreamHeader.dwLength
    path.write_bytes(data[:at] + (2**31 - 1).to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(VideoError, match="truncated: its header says 2147483647 frames, the file has 40"):
        read_clip(path, middle)


def matroska(path, pictures, sounds=0):
    """Write pictures at some seconds, and as many seconds of silence."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options=FAST)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 64, 48, "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = output.add_stream("pcm_s16le", rate=8000, layout="mono") if sounds else None
        for second in pictures:
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * second), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        for second in range(sounds):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
            silence.sample_rate, silence.pts = 8000, 8000 * second
            output.mux(sound.encode(silence))
    return path


@pytest.mark.parametrize(("keep", "pictures", "sounds"), [(0.5, 50, 0), (0.6, 25, 9)])
def test_a_container_that_states_seconds_alone_and_ends_early(tmp_path, keep, pictures, sounds):
    path = matroska(tmp_path / "a.mkv", [number / 10 for number in range(pictures)], sounds)
    assert not read_header(path).truncated
    path = truncate(path, keep)
    with pytest.raises(VideoError, match=r"truncated: its header says \d.\d s, the file has \d.\d"):
        read_header(path)
    assert 0 < read_header(path, truncated=True).shown <= pictures


def test_seconds_without_pictures_are_no_damage(tmp_path):
    assert read_header(matroska(tmp_path / "sound.mkv", [0, 0.04, 0.08], sounds=9)).shown == 3
    assert read_header(matroska(tmp_path / "slides.mkv", [0, 4, 9])).shown == 3
    assert read_header(matroska(tmp_path / "one.mkv", [0])).shown == 1
