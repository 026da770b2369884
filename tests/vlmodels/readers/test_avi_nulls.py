"""A null packet of an AVI, a dropped frame, repeats the last picture."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.videofiles import drop_frames, numbers, truncate, write_video
from vlmodels.video import VideoError, read_clip

DROPPED = {
    "two of three": {index for index in range(60) if index % 3},
    "a few": {5, 6, 30},
    "the end": set(range(40, 60)),
    "the start": set(range(5)),
    "the middle": set(range(20, 50)),
}


def every(n):
    return np.arange(n)


def shown(dropped):
    """Which picture stands at each place; at the start, before there is any, the first that comes."""
    present = sorted(set(range(60)) - dropped)
    return [max((one for one in present if one <= place), default=present[0]) for place in range(60)]


@pytest.mark.parametrize("index", [True, False], ids=["with index", "without index"])
@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "rawvideo"])
@pytest.mark.parametrize("dropped", DROPPED.values(), ids=DROPPED)
def test_the_last_picture_stays(tmp_path, dropped, codec, index):
    path = write_video(tmp_path / "a.avi", 60, codec=codec, options={"g": "1"} if codec == "mpeg4" else None)
    frames, info = read_clip(drop_frames(path, dropped, index=index), every)
    assert numbers(frames) == shown(dropped)
    assert info.n_frames == 60


def test_a_cut_file_is_still_truncated(tmp_path):
    path = write_video(tmp_path / "a.avi", 60, 320, 240, codec="mpeg4", options={"g": "1"})
    path = truncate(drop_frames(path, DROPPED["two of three"]), 0.5)
    with pytest.raises(VideoError, match=r"truncated: its header says 60 frames, the file has \d\d"):
        read_clip(path, every)


def test_a_recording_of_67_pictures_in_199_frames(shared_data):
    frames, info = read_clip(shared_data / "faults" / "null_frames.avi", every)
    assert info.n_frames == len(frames) == 199
    changes = [index for index in range(1, 199) if not np.array_equal(frames[index], frames[index - 1])]
    assert changes == list(range(3, 199, 3))
