"""A folder of numbered pictures is a video: in the order of the numbers, whole, and of one size; or it says why not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.helpers.videofiles import numbers, picture
from vlmodels.cuts import read_cut
from vlmodels.span import Span
from vlmodels.video import VideoError, probe, read_clip


def every(count):
    return np.arange(count)


def folder(path, names, size=(64, 48)):
    path.mkdir(parents=True)
    for index, name in enumerate(names):
        Image.fromarray(picture(index, *size)).save(path / name)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "JPEG"])
def test_pictures_are_frames_in_the_order_of_their_numbers(tmp_path, suffix):
    path = folder(tmp_path / "v", [f"img_{number}.{suffix}" for number in range(1, 13)])  # img_2 before img_10
    (path / "notes.txt").write_text("x")
    frames, info = read_clip(path, every)
    assert numbers(frames) == list(range(12))
    assert (info.width, info.height, info.n_frames, info.fps, info.decoder) == (64, 48, 12, 0.0, "pictures")
    assert probe(path).n_frames == 12


def test_only_wanted_pictures_are_opened(tmp_path):
    path = folder(tmp_path / "v", [f"{number:05d}.jpg" for number in range(9)])
    (path / "00003.jpg").write_bytes(b"no picture")
    assert numbers(read_clip(path, lambda _: np.array([0, 8]))[0]) == [0, 8]
    with pytest.raises(VideoError, match=r"its picture 00003\.jpg is damaged"):
        read_clip(path, every)


def test_optical_flow_beside_pictures_is_left_out(tmp_path):
    path = folder(tmp_path / "v", ["img_00001.jpg", "img_00002.jpg"])
    for name in ("flow_x_00001.jpg", "flow_y_00001.jpg"):
        Image.new("L", (8, 8)).save(path / name)
    assert read_clip(path, every)[1].n_frames == 2


def test_every_fifth_frame_is_a_video_too(tmp_path):
    assert read_clip(folder(tmp_path / "v", ["0.jpg", "5.jpg", "10.jpg"]), every)[1].n_frames == 3


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        (["1.jpg", "2.jpg", "4.jpg"], "a gap in its pictures: none is between 2.jpg and 4.jpg"),
        (["1.jpg", "9.jpg"], "a gap in its pictures: none is between 1.jpg and 9.jpg"),
        (["1.jpg", "1.png"], "two pictures have the number 1"),
        (["a1.jpg", "b1.jpg"], "2 series of pictures in one folder"),
        ([], "it is a folder, not a video, and holds no numbered pictures"),
    ],
)
def test_a_folder_that_is_no_video_says_why(tmp_path, names, cause):
    with pytest.raises(VideoError, match=cause):
        read_clip(folder(tmp_path / "v", names), every)


def test_pictures_of_two_sizes_are_no_video(tmp_path):
    path = folder(tmp_path / "v", ["1.jpg", "2.jpg"])
    Image.new("RGB", (32, 32)).save(path / "3.jpg")
    with pytest.raises(VideoError, match=r"different sizes: 64x48 and 32x32 \(3\.jpg\)"):
        read_clip(path, every)


def test_an_empty_picture_is_found_though_nothing_wants_it(tmp_path):
    path = folder(tmp_path / "v", ["1.jpg", "2.jpg", "3.jpg"])
    (path / "2.jpg").write_bytes(b"")
    with pytest.raises(VideoError, match=r"its picture 2\.jpg is empty"):
        read_clip(path, lambda _: np.zeros(1, np.int64))


def test_gray_pictures_are_rgb_and_deep_ones_are_refused(tmp_path):
    path = folder(tmp_path / "v", [])
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(path / "1.png")
    assert (read_clip(path, every)[0] == 90).all()
    Image.fromarray(np.full((8, 8), 9000, np.uint16)).save(path / "1.png")
    with pytest.raises(VideoError, match="more than 8 bits"):
        read_clip(path, every)


def test_a_part_by_seconds_needs_frames_per_second(tmp_path):
    path = folder(tmp_path / "v", [f"{number}.jpg" for number in range(20)])
    assert numbers(read_cut(path, Span(0.5, 1), every, fps=10)[0]) == [5, 6, 7, 8, 9]
    assert numbers(read_cut(path, Span(3, 6, "frames"), every)[0]) == [3, 4, 5]
    with pytest.raises(VideoError, match="--fps"):
        read_cut(path, Span(0.5, 1), every)
