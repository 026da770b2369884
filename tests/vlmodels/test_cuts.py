"""Parts of a video are what a full decode shows between two times, with every reader; it is decoded once for all."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.helpers.videofiles import numbers, write_video
from vlmodels.cuts import read_cut, read_cuts
from vlmodels.readers.pyav_reader import upright
from vlmodels.span import Span
from vlmodels.video import VideoError, require_reader


def every(count):
    return np.arange(count)


def some(count):
    return np.unique(np.linspace(0, count - 1, 5).astype(np.int64))


def shown(path: Path, span: Span) -> list[np.ndarray]:
    """The frames that PyAV decodes in a span, counted from the start of the file."""
    with av.open(str(path)) as container:
        began = max(0, container.start_time or 0) / av.time_base
        frames = list(container.decode(video=0))
    size = frames[0].width, frames[0].height
    return [upright(one, *size) for one in frames if span.start <= round(one.time - began, 6) < span.end]


@pytest.mark.parametrize("reader", ["pyav", "decord", "auto"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.ts", "a.mov"])
def test_a_part_is_what_is_shown_in_its_times(tmp_path, name, reader):
    codec = "libvpx" if name.endswith("webm") else "libx264"
    path = write_video(tmp_path / name, frames=120, codec=codec, options={"g": "20"} if codec == "libx264" else {})
    if reader != "auto":
        require_reader(reader)
    for span in (Span(0, 1), Span(1.24, 2.0), Span(3.5, 4.8), Span(0.02, 0.05)):
        expected = shown(path, span)
        frames, info = read_cuts(path, [span], every, reader=reader, sparse=0)[0]
        assert info.n_frames == len(expected) > 0
        assert (frames == np.stack(expected)).all()


def test_parts_of_real_files_are_what_a_full_decode_shows(shared_data):
    names = ["k400_demo_5s.mp4", "ssv2_style_12fps.webm", "mpeg2.ts", "h265.mp4", "vfr_switch.mp4", "bikes.mp4"]
    names += ["start_time_offset_5s.mp4", "rotation_meta_90.mp4", "wmv2.wmv", "vp9.webm"]
    for name in names:
        path = shared_data / "clips" / name
        for span in (Span(0.1, 0.5), Span(0.3, 0.9)):
            expected = shown(path, span)
            frames, info = read_cut(path, span, some)
            assert info.n_frames == len(expected), name
            assert (frames == np.stack(expected)[some(len(expected))]).all(), name


def test_many_parts_are_as_each_alone_and_decoded_once(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=250, options={"g": "25"})
    spans = [Span(start / 2, start / 2 + 1.5) for start in range(16)]
    calls = []
    together = read_cuts(path, spans, some, lambda block: calls.append(len(block)) or block)
    assert sum(calls) <= 5 * len(spans)  # a frame that two parts share is resized once
    for span, (frames, info) in zip(spans, together, strict=True):
        alone, facts = read_cut(path, span, some)
        assert (frames == alone).all()
        assert info == facts


def test_frames_are_counted_from_0_and_the_end_is_excluded(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=60)
    frames, info = read_cut(path, Span(30, 33, "frames"), every)
    assert numbers(frames) == [30, 31, 32]
    assert info.n_frames == 3


def test_an_avi_is_cut_by_its_frame_rate(tmp_path):
    path = write_video(tmp_path / "a.avi", frames=50, codec="mpeg4")
    assert numbers(read_cut(path, Span(1, 1.2), every)[0]) == [25, 26, 27, 28, 29]


def test_the_whole_video_may_be_among_the_parts(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=60)
    whole, part = read_cuts(path, [None, Span(1)], every)
    assert (whole[1].n_frames, part[1].n_frames) == (60, 35)


@pytest.mark.parametrize(
    ("span", "cause"),
    [
        (Span(1, 3), "times after the video's end: they are 1.0-3.0 s, the video ends at 2.0 s"),
        (Span(5, 9), "times after the video's end"),
        (Span(1.001, 1.002), "no frame between its times: 1.001-1.002 s"),
        (Span(10, 51, "frames"), "the video ends at frame 50"),
    ],
)
def test_a_part_that_the_video_has_not_is_an_error_of_this_part(tmp_path, span, cause):
    path = write_video(tmp_path / "a.mp4", frames=50)
    wrong, right = read_cuts(path, [span, Span(0, 2)], every)
    assert isinstance(wrong, VideoError)
    assert cause in wrong.cause
    assert right[1].n_frames == 50


def test_an_end_may_be_rounded_up_by_a_frame(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=50)
    assert read_cut(path, Span(1, 2.04), every)[1].n_frames == 25
