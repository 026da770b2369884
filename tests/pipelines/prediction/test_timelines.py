from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.prediction.timeline_flags import TimelineRequest
from pipelines.prediction.timelines import Shared, make_timelines
from pipelines.prediction.videos import Listing, list_videos
from tests.helpers.videofiles import truncate, write_video
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.zeroshot import ZeroShot
from vlmodels.predictor import Predictor
from vlmodels.span import Span


@pytest.fixture(scope="module")
def predictor():
    found = Predictor(ZeroShot(create("toy", weights="toy", num_frames=2)))
    found.set_labels(["a ball", "a tree"])
    return found


def test_good_videos_have_a_page_and_bad_ones_a_message(predictor, tmp_path, capsys):
    good = write_video(tmp_path / "a" / "v.mp4", frames=60)
    other = write_video(tmp_path / "b" / "v.mp4", frames=60)
    cut = write_video(tmp_path / "cut.mp4", frames=250, options={"g": "10"}, container={"movflags": "faststart"})
    truncate(cut, 0.6)
    videos = [str(good), str(tmp_path / "none.mp4"), str(other), str(cut)]
    out = tmp_path / "out" / "deep"
    assert make_timelines(predictor, list_videos(videos), TimelineRequest(1, 0.5, out), Shared("model")) == 1
    assert {path.name for path in out.iterdir()} == {
        f"{stem}.{suffix}" for stem in ("v", "v-2", "cut") for suffix in ("json", "csv", "html")
    }
    printed = capsys.readouterr()
    assert f"{good}\n  0:00.0 - 0:02.4" in printed.out
    assert "none.mp4: no such file" in printed.err
    assert "cut.mp4: the timeline ends at" in printed.err
    assert json.loads((out / "cut.json").read_text())["reason"].startswith("truncated")


def test_json_and_a_part(predictor, tmp_path, capsys):
    video = write_video(tmp_path / "v.mp4", frames=100)
    shared = Shared("model", topk=1, threshold=1.0, json=True)
    assert (
        make_timelines(predictor, list_videos([str(video)], span=Span(1, 3)), TimelineRequest(1, 0.5, tmp_path), shared)
        == 0
    )
    content = json.loads(capsys.readouterr().out)
    assert (content["start"], content["end"], content["threshold"]) == (1, 3, 1)
    assert [segment["status"] for segment in content["segments"]] == ["none"]


def test_ctrl_c_keeps_what_was_done(tmp_path, capsys):
    video = write_video(tmp_path / "v.mp4", frames=250)

    class Stopped(Predictor):
        scored = 0

        def score(self, videos):
            self.scored += 1
            if self.scored == 2:
                raise KeyboardInterrupt
            return super().score(videos)

    predictor = Stopped(ZeroShot(create("toy", weights="toy", num_frames=32)))
    predictor.set_labels(["a ball", "a tree"])
    later = str(tmp_path / "later.mp4")
    listing = list_videos([str(video), later])
    assert make_timelines(predictor, listing, TimelineRequest(2, 1, tmp_path / "out"), Shared("m")) == 130
    content = json.loads((tmp_path / "out" / "v.json").read_text())
    assert not content["complete"]
    assert 2 <= content["end"] < content["length"] == 10
    assert "stopped by Ctrl-C" in capsys.readouterr().err


def test_folders_that_cannot_be_written(predictor, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="--timeline"):
            make_timelines(predictor, Listing(tmp_path), TimelineRequest(1, 1, folder), Shared("m"))


def test_probabilities_do_not_depend_on_what_is_scored_together(predictor, tmp_path):
    video = write_video(tmp_path / "v.mp4", frames=250)
    windows = [frames for _, frames in predictor.read_windows(video, 2, 0.5)]
    together = predictor.score(windows).probabilities
    assert np.allclose(together[3], predictor.score([windows[3]]).probabilities[0], atol=1e-6)
