"""The flags that name the videos, and which output folders do not go with them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from pipelines.videos.flags import add_input_flags, inputs_from
from tests.helpers.list_files import put
from vlmodels.errors import UserError


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """``v`` with two classes, and ``link`` that leads to it, in the working folder."""
    for name in ("v/wave/a.mp4", "v/jump/b.mp4", "d/shards/jump/c.mp4"):
        put(tmp_path / name)
    (tmp_path / "v" / "wave" / "empty").mkdir()
    (tmp_path / "link").symlink_to("v")
    monkeypatch.chdir(tmp_path)


def found(videos, out):
    parser = argparse.ArgumentParser()
    add_input_flags(parser)
    return inputs_from(parser.parse_args(["--videos", videos]), exclude=Path(out)).videos


@pytest.mark.parametrize(
    ("videos", "out", "said"),
    [
        ("v", "v", "is the videos' own folder"),
        ("v", "./v/../link", "is the videos' own folder"),
        ("v", "v/wave", "holds videos itself"),
        ("link", "v/jump", "holds videos itself"),
        ("d/shards", "d", "would write into the videos' folder"),
    ],
)
def test_output_folders_that_would_mix_with_the_videos(clips, videos, out, said):
    with pytest.raises(UserError, match=f"--out .* {said}.*; choose another folder"):
        found(videos, out)


@pytest.mark.parametrize("out", ["data", "v/data", "v/wave/empty", ".", "v/../data"])
def test_output_folders_beside_the_videos(clips, out):
    assert [video.uri for video in found("v", out)] == ["jump/b.mp4", "wave/a.mp4"]
