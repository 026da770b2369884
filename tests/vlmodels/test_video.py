"""Reading frames: the frames asked for, upright, from whichever decoder; broken files say why."""

from __future__ import annotations

import pickle
import sys
from functools import partial

import av
import numpy as np
import pytest

from tests.helpers.videofiles import numbers, picture, truncate, turn, write_audio, write_video
from vlmodels import video
from vlmodels.errors import UserError
from vlmodels.sampling import segment_indices
from vlmodels.video import VideoError, probe

read_clip = partial(video.read_clip, sparse=0)  # decord for short videos too


def middle(n):
    return segment_indices(n, 8)


def require(reader):
    try:
        video.require_reader(reader)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["pyav", "decord", "torchcodec"])
def reader(request):
    require(request.param)
    return request.param


BOTH = {"decord", "torchcodec"}
CODINGS = [
    ("a.mp4", "libx264", {"g": "12", "bf": "2"}, BOTH),
    ("a.mkv", "libx264", {"g": "12", "bf": "2"}, BOTH),
    ("a.avi", "mpeg4", {"g": "12"}, BOTH),
    ("a.webm", "libvpx", {"deadline": "realtime"}, BOTH),
    ("bframes.avi", "mpeg4", {"g": "12", "bf": "2"}, set()),
    ("bframes.mp4", "mpeg4", {"g": "12", "bf": "2"}, {"torchcodec"}),
    ("h264.avi", "libx264", {"g": "12", "bf": "2"}, set()),
    ("a.ts", "mpeg2video", {"g": "12"}, set()),
    ("a.wmv", "wmv2", {"g": "12"}, set()),
    ("refresh.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=12"}, set()),
    ("hevc.mp4", "libx265", {"x265-params": "keyint=12:log-level=none"}, {"torchcodec"}),
]


@pytest.mark.parametrize(("name", "codec", "options", "right"), CODINGS, ids=[row[0] for row in CODINGS])
def test_the_frames_asked_for_come_back(tmp_path, reader, name, codec, options, right):
    path = write_video(tmp_path / name, frames=60, codec=codec, options=options)
    frames, info = read_clip(path, middle, reader=reader)
    assert numbers(frames) == middle(60).tolist()
    assert (info.width, info.height, info.n_frames) == (64, 48, 60)
    assert info.decoder == (reader if reader in right else "pyav")
    assert np.array_equal(frames, read_clip(path, middle, reader="pyav")[0])


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied_alike(tmp_path, reader, degrees):
    path = turn(write_video(tmp_path / "turned.mp4", frames=4), degrees)
    frames, info = read_clip(path, middle, reader=reader)
    again, _ = read_clip(path, middle, reader="pyav")
    assert np.array_equal(frames, again)
    assert frames.shape[1:3] == ((64, 48) if degrees != 180 else (48, 64))
    assert (info.height, info.width) == frames.shape[1:3]
    assert (probe(path).height, probe(path).width) == frames.shape[1:3]
    corners = frames[0, [4, 4, -5, -5], [4, -5, 4, -5], 1] > 100  # which corner is green
    assert corners.tolist() == [False, degrees == 90, degrees == 270, degrees == 180]


def test_few_frames_repeat_and_are_transformed_once(tmp_path, reader):
    seen = []

    def shrink(frames):
        seen.append(len(frames))
        return frames[:, ::2, ::2]

    path = write_video(tmp_path / "short.mp4", frames=3)
    frames, info = read_clip(path, middle, shrink, reader=reader)
    assert frames.shape == (8, 24, 32, 3)
    assert numbers(frames) == middle(3).tolist()
    assert sum(seen) == 3
    assert info.n_frames == 3


def test_blocks_bound_the_memory_of_large_frames(tmp_path, reader):
    path = write_video(tmp_path / "a.mp4", frames=40)
    sizes = []
    three = 3 * 64 * 48 * 3
    frames, _ = read_clip(path, middle, lambda block: sizes.append(len(block)) or block, block_bytes=three)
    assert numbers(frames) == middle(40).tolist()
    assert max(sizes) == 3


def test_a_start_that_is_cut_away_by_an_edit_list_is_not_shown(tmp_path, reader):
    whole = write_video(tmp_path / "whole.mp4", frames=60, options={"g": "20", "bf": "2"})
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        shift = int(30 / 25 / source.streams.video[0].time_base)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                target.mux(packet)
    frames, info = read_clip(cut, middle, reader=reader)
    assert info.n_frames == 30
    assert numbers(frames) == [30 + index for index in middle(30)]


def test_header_that_promises_more_than_is_there(tmp_path, reader):
    avi = truncate(write_video(tmp_path / "cut.avi", frames=60, codec="mpeg4", options={"g": "1"}), 0.4)
    with pytest.raises(VideoError, match=r"truncated: its header says 60 frames, the file has \d+"):
        read_clip(avi, middle, reader=reader)
    mp4 = write_video(tmp_path / "cut.mp4", frames=60, container={"movflags": "faststart"})
    with pytest.raises(VideoError, match=r"truncated: its header says 60"):
        read_clip(truncate(mp4, 0.6), middle, reader=reader)


def test_damage_in_the_middle(tmp_path, reader):
    path = write_video(tmp_path / "a.mp4", 60, 320, 240, options={"g": "60"}, container={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    start, end = len(data) * 6 // 10, len(data) * 9 // 10
    data[start:end] = np.random.default_rng(0).integers(0, 255, end - start, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"damaged: \d+ of 60 frames"):
        read_clip(path, middle, reader=reader)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "the file is empty"),
        (b"\0" * 5000, "only zeros"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"no video at all, just text", "not a readable video"),
    ],
)
def test_what_is_no_video_is_named(tmp_path, content, cause):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=cause) as caught:
        read_clip(path, middle)
    assert isinstance(caught.value, UserError)
    assert str(path) in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).cause == caught.value.cause


def test_audio_alone_and_missing_files(tmp_path):
    with pytest.raises(VideoError, match="no video stream"):
        read_clip(write_audio(tmp_path / "sound.mp4"), middle)
    with pytest.raises(VideoError, match="no such file"):
        probe(tmp_path / "absent.mp4")


def test_others_than_pyav_only_where_they_can_skip(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=80)
    assert read_clip(path, lambda n: segment_indices(n, 9), sparse=10)[1].decoder == "pyav"
    seeking = read_clip(path, middle, sparse=10)[1].decoder
    if seeking == "pyav":
        pytest.skip("PyAV is the only reader on this machine")
    assert seeking in BOTH


def test_odd_names(tmp_path, reader):
    path = write_video(tmp_path / "-name with space #1 [x] & é.mp4", frames=8)
    assert read_clip(path, middle, reader=reader)[1].n_frames == 8


@pytest.mark.parametrize("reader", ["decord", "torchcodec"])
def test_frames_of_real_clips_are_the_same_with_every_reader(shared_data, reader):
    require(reader)
    compared = 0
    for path in sorted((shared_data / "clips").iterdir()):
        try:
            frames, info = read_clip(path, middle, reader=reader)
        except VideoError:
            continue
        if info.decoder != reader or info.width > 700:
            continue
        plain, facts = read_clip(path, middle, reader="pyav")
        assert facts.n_frames == info.n_frames, path.name
        assert np.array_equal(frames, plain), path.name
        compared += 1
    assert compared > 25


def test_a_reader_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "decord", None)
    path = write_video(tmp_path / "a.mp4", frames=8)
    with pytest.raises(UserError, match="reader decord is not installed: pip install decord"):
        read_clip(path, middle, reader="decord")
    with pytest.raises(UserError, match="did you mean 'decord'"):
        read_clip(path, middle, reader="decrod")


FORMATS = [
    *(("a.gif", "gif", None), ("a.h264", "libx264", "h264"), ("a.vob", "mpeg2video", "vob")),
    *(("a.mxf", "mpeg2video", "mxf"), ("a.MOD", "mpeg2video", "mpeg"), ("a.ts", "libx264", "mpegts")),
    *(
        ("a.m4v", "libx264", "mp4"),
        ("raw.m4v", "mpeg4", "m4v"),
        ("a.3gp", "mpeg4", "3gp"),
        ("a.hevc", "libx265", "hevc"),
    ),
    *(("no suffix", "libx264", "mp4"), ("no suffix", "libx264", "h264"), ("a.nut", "mpeg4", "nut")),
    *(("a.png", "apng", "apng"), ("a.mjpeg", "mjpeg", "mjpeg"), ("a.m2v", "mpeg2video", "mpeg2video")),
]


@pytest.mark.parametrize(("name", "codec", "form"), FORMATS)
def test_formats(tmp_path, reader, name, codec, form):
    path = tmp_path / name
    with av.open(str(path), "w", format=form) as output:
        stream = output.add_stream(codec, rate=25)
        pixels = {"gif": "rgb8", "apng": "rgb24", "mjpeg": "yuvj420p"}
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels.get(codec, "yuv420p")
        for index in range(60):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index, 64, 48), format="rgb24")))
        output.mux(stream.encode())
    frames, info = read_clip(path, middle, reader=reader)
    assert numbers(frames) == middle(60).tolist()
    assert info.n_frames == 60
