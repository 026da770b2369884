"""Windows of a long video are what their seconds are alone; frames are decoded and resized once, and few are kept."""

from __future__ import annotations

import itertools
import weakref
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.helpers.videofiles import drop_frames, numbers, picture, truncate, turn, write_video
from vlmodels.cuts import read_cut
from vlmodels.errors import UserError
from vlmodels.readers.times import Times
from vlmodels.sampling import view_indices
from vlmodels.span import Span
from vlmodels.video import VideoError, read_clip
from vlmodels.windows import iter_windows, tile


def views(count):
    return view_indices(count, 4, 2)


def same(frames):
    return frames


def alone(path, span, fps=0.0):
    """The views of a part of a video, read by itself."""
    kept, info = read_cut(path, span, lambda count: np.unique(views(count)), fps=fps)
    return kept[np.searchsorted(np.unique(views(info.n_frames)), views(info.n_frames))]


def read_all(path, window, stride, **options):
    """The windows of a video, and why it ends early."""
    found = []
    try:
        for item in iter_windows(path, window, stride, views, same, **options):
            found.append(item)  # noqa: PERF402 - an error comes in the middle
    except VideoError as error:
        return found, error.cause
    return found, ""


def spans(found):
    return [(span.start, span.end) for span, _ in found]


def assert_as_alone(path, found, fps=0.0):
    assert found
    for span, frames in found:
        assert frames.shape[:2] == (2, 4)
        assert (frames == alone(path, span, fps)).all(), span


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.ts", "a.mov", "a.avi"])
def test_a_window_is_as_its_seconds_alone(tmp_path, name):
    codec = {"a.webm": "libvpx", "a.avi": "mpeg4"}.get(name, "libx264")
    path = write_video(tmp_path / name, frames=120, codec=codec, options={"g": "50"} if codec == "libx264" else {})
    found, cause = read_all(path, 1.2, 0.5)
    assert cause == ""
    assert_as_alone(path, found)


CLIPS = "vfr_switch.mp4 start_time_offset_5s.mp4 one_keyframe.mp4 rotation_meta_90.mp4 mpeg2.ts ucf_style_test.avi"


@pytest.mark.parametrize("name", CLIPS.split())
def test_a_window_is_as_a_file_cut_out_without_loss(shared_data, tmp_path, name):
    path = shared_data / "clips" / name
    found, cause = read_all(path, 0.9, 0.7)
    assert cause == ""
    for number, (span, frames) in enumerate(found[:: max(1, len(found) // 3)]):
        assert (frames == alone(path, span)).all()
        if not name.startswith("rotation"):  # a file cut out has no rotation
            cut = cut_out(path, span, tmp_path / f"{number}.mkv")
            whole, info = read_clip(cut, np.arange)
            assert (frames == whole[views(info.n_frames)]).all(), span


def cut_out(path: Path, span: Span, to: Path) -> Path:
    """Write the frames that are shown in a span with a codec that loses nothing."""
    with av.open(str(path)) as source, av.open(str(to), "w") as output:
        began = max(0, source.start_time or 0) / av.time_base
        source.streams.video[0].thread_type = "NONE"
        stream = None
        for count, frame in enumerate(source.decode(video=0)):
            shown = count / float(source.streams.video[0].average_rate) if path.suffix == ".avi" else frame.time - began
            if not span.start <= round(shown, 6) < span.end:
                continue
            if stream is None:
                stream = output.add_stream("ffv1", rate=25)
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
                number = itertools.count()
            frame.pts, frame.time_base, frame.pict_type = next(number), Fraction(1, 25), 0
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return to


@pytest.mark.parametrize(
    ("seconds", "window", "stride", "expected"),
    [
        (4.0, 2, 1, [(0, 2), (1, 3), (2, 4)]),
        (4.4, 2, 1, [(0, 2), (1, 3), (2, 4), (2.4, 4.4)]),  # the last one is as long, and ends with the video
        (4.4, 2, 2, [(0, 2), (2, 4), (2.4, 4.4)]),
        (4.0, 4, 2, [(0, 4)]),
        (3.96, 4, 2, [(0, 3.96)]),  # an end may be rounded up by a frame
        (2.0, 0.1, 0.1, [(round(i / 10, 1), round((i + 1) / 10, 1)) for i in range(20)]),
    ],
)
def test_where_windows_are(tmp_path, seconds, window, stride, expected):
    path = write_video(tmp_path / "a.mp4", frames=round(25 * seconds))
    reader = iter_windows(path, window, stride, views, same)
    assert (reader.start, reader.end, reader.count) == (0, expected[-1][1], len(expected))
    assert spans(reader) == expected
    assert [(span.start, span.end) for span in tile(0, seconds, window, stride)] == expected


@pytest.mark.parametrize(
    ("part", "window", "stride", "expected"),
    [
        ((0, 10), 4, 2, [(0, 4), (2, 6), (4, 8), (6, 10)]),
        ((0, 3), 4, 2, [(0, 3)]),
        ((5, 9.5), 2, 2, [(5, 7), (7, 9), (7.5, 9.5)]),
        ((0, 0.3), 0.1, 0.1, [(0, 0.1), (0.1, 0.2), (0.2, 0.3)]),
        ((0.1, 0.7), 0.3, 0.1, [(0.1, 0.4), (0.2, 0.5), (0.3, 0.6), (0.4, 0.7)]),
    ],
)
def test_windows_of_a_part_that_is_known_by_its_length_alone(part, window, stride, expected):
    assert [(span.start, span.end) for span in tile(*part, window, stride)] == expected


def test_a_part_of_a_video(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=150, options={"g": "20"})
    found, _ = read_all(path, 1, 0.5, span=Span(2.2, 4.3))
    assert spans(found) == [(2.2, 3.2), (2.7, 3.7), (3.2, 4.2), (3.3, 4.3)]
    assert_as_alone(path, found)


def test_each_frame_is_resized_once_and_few_are_kept(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=250)
    resized: list[int] = []
    kept = []

    class Frame(np.ndarray):
        pass  # plain arrays have no weak references

    def shrink(frames):
        result = frames[:, ::2, ::2].copy().view(Frame)
        kept.append(weakref.ref(result))
        resized.extend(numbers(frames))
        return result

    most = 0
    for _ in iter_windows(path, 1, 0.25, views, shrink):
        most = max(most, sum(one() is not None for one in kept))
    assert len(resized) == len(set(resized)) > 100
    assert most <= 5 * 8  # four windows are open at a time, and the one that is given out


def test_windows_in_which_nothing_is_shown_are_left_out(tmp_path):
    path = tmp_path / "still.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(100):
            frame = av.VideoFrame.from_ndarray(picture(index, 64, 48), format="rgb24")
            frame.pts = index + (200 if index >= 50 else 0)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    found, _ = read_all(path, 2, 1)
    assert [start for start, _ in spans(found)][:4] == [0, 1, 9, 10]
    assert_as_alone(path, found)


def test_frames_that_were_dropped(tmp_path):
    path = drop_frames(write_video(tmp_path / "a.avi", frames=100, codec="mpeg4"), {10, 11, 60})
    found, _ = read_all(path, 1, 0.5)
    assert_as_alone(path, found)


def test_a_video_that_changes_its_size(tmp_path):
    small = write_video(tmp_path / "small.ts", frames=50)
    large = write_video(tmp_path / "large.ts", frames=50, width=128, height=64)
    path = tmp_path / "both.h264"
    with path.open("wb") as both:
        for one in (small, large):
            with av.open(str(one)) as source:
                for packet in source.demux(video=0):
                    both.write(bytes(packet))
    found, _ = read_all(path, 0.8, 0.4)
    assert_as_alone(path, found)


def test_a_turned_video_and_the_resize(tmp_path):
    from vlmodels.resize import resize_cover

    path = turn(write_video(tmp_path / "a.mp4", frames=50), 90)
    shapes = {
        frames.shape[2:] for _, frames in iter_windows(path, 1, 1, views, lambda block: resize_cover(block, 40, 32))
    }
    assert shapes == {(40, 32, 3)}


def test_folders_of_pictures_and_animated_webp(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    images = [Image.fromarray(picture(index, 64, 48)) for index in range(30)]
    for index, image in enumerate(images):
        image.save(folder / f"{index:03d}.png")
    found, _ = read_all(folder, 1, 0.5, fps=10)
    assert_as_alone(folder, found, fps=10)
    with pytest.raises(VideoError, match="--fps"):
        iter_windows(folder, 1, 0.5, views, same)
    path = tmp_path / "a.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, lossless=True)
    found, _ = read_all(path, 1, 0.5)
    assert spans(found)[-1] == (2, 3)
    assert_as_alone(path, found)
    (folder / "020.png").write_bytes(b"damaged")
    found, cause = read_all(folder, 1, 0.5, fps=10)
    assert spans(found)[-1][1] <= 2.5
    assert "020.png is damaged" in cause


def test_windows_before_the_end_of_a_truncated_file(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=250, options={"g": "10"}, container={"movflags": "faststart"})
    expected, _ = read_all(path, 1, 0.5)
    found, cause = read_all(truncate(path, 0.6), 1, 0.5)
    assert "truncated: its header says 250 frames" in cause
    assert 5 < len(found) < len(expected)
    for (span, frames), (whole, right) in zip(found[:-1], expected, strict=False):
        assert span == whole
        assert (frames == right).all()


@pytest.mark.parametrize("name", ["bitrot_middle.mp4", "decord_corrupted.mp4"])
def test_windows_before_the_damage(shared_data, name):
    path = shared_data / "clips" / name
    found, cause = read_all(path, 0.6, 0.3)
    assert found
    assert "frames can be decoded" in cause
    assert_as_alone(path, found[:-1])


def test_a_recording_that_begins_before_its_first_key_frame(tmp_path):
    whole = write_video(tmp_path / "a.ts", frames=150, options={"g": "50", "bf": "0"})
    data = whole.read_bytes()
    path = tmp_path / "later.ts"
    path.write_bytes(data[len(data) // 188 // 8 * 188 :])
    found, cause = read_all(path, 1, 0.5)
    assert cause == ""
    assert_as_alone(path, found)


@pytest.mark.parametrize(
    ("window", "stride", "match"),
    [
        (0, 1, "window=0"),
        (-1, 1, "window=-1"),
        (float("nan"), 1, "window=nan"),
        (float("inf"), 1, "window=inf"),
        (1e-9, 1e-9, "window=1e-09"),
        (1, 0, "stride=0"),
        (1, float("nan"), "stride=nan"),
        (1, 2, "stride=2 is longer than window=1"),
        (5, 1, "longer than the video, which has 2.0 s"),
        (0.03, 0.03, "a window of 0.03 s is shorter than a frame"),
        (1, 0.01, "a stride of 0.01 s is shorter than a frame"),
    ],
)
def test_what_is_refused(tmp_path, window, stride, match):
    path = write_video(tmp_path / "a.mp4", frames=50)
    with pytest.raises(UserError, match=match):
        iter_windows(path, window, stride, views, same)


def test_more_overlap_than_the_memory_holds(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", frames=50)
    monkeypatch.setattr("vlmodels.windows.MOST_KEPT", 20)
    with pytest.raises(VideoError, match="20 windows overlap, with 8 frames each"):
        iter_windows(path, 1, 0.05, views, same)
    assert len(read_all(path, 1, 0.5)[0]) == 3


def test_two_hours_are_planned_without_rounding():
    times = Times.by_rate(2 * 3600 * 25, 25)
    assert times.numbers(Span(7199.96, 7200.0)) == range(179999, 180000)
