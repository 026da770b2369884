"""An animated WebP is a video; a still one is a picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.helpers.videofiles import numbers, picture, truncate
from vlmodels.sampling import segment_indices
from vlmodels.video import VideoError, probe, read_clip


def write(path, frames):
    pictures = [Image.fromarray(picture(index, 64, 48)) for index in range(frames)]
    more = {"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}
    pictures[0].save(path, format="WEBP", duration=40, lossless=True, **more)
    return path


def middle(n):
    return segment_indices(n, 8)


def test_frames_and_facts(tmp_path):
    path = write(tmp_path / "a.mp4", 60)
    frames, info = read_clip(path, middle)
    assert numbers(frames) == middle(60).tolist()
    assert np.array_equal(frames[0], picture(middle(60)[0], 64, 48))
    assert (info.width, info.height, info.fps, info.n_frames) == (64, 48, 25.0, 60)
    assert probe(path) == info


def test_what_is_refused(tmp_path):
    with pytest.raises(VideoError, match="a WebP picture, not a video"):
        read_clip(write(tmp_path / "still.webp", 1), middle)
    with pytest.raises(VideoError, match="damaged"):
        read_clip(truncate(write(tmp_path / "cut.webp", 60), 0.5), middle)
    path = write(tmp_path / "large.webp", 2)
    data = bytearray(path.read_bytes())
    data[24:30] = (16382).to_bytes(3, "little") * 2  # VP8X canvas
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"16383x16383|damaged"):
        read_clip(path, middle)
