"""Timelines of toy-world videos with the toy model, which knows their classes."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from pipelines.prediction.timeline import Asked, make_timeline, to_json, write_csv, write_json
from pipelines.toyworld.clips import draw_clip, toy_classes
from pipelines.toyworld.world import write_video
from tests.helpers.videofiles import truncate
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.zeroshot import ZeroShot
from vlmodels.predictor import Predictor
from vlmodels.span import Span

SHOTS = ((0, 2), (5, 3), (10, 2), (0, 2))
"""Class and number of clips of 3 s of each shot of the video."""

NAMES = tuple(toy_classes("toy-ucf")[number].name for number in (0, 5, 10, 15, 18))


@pytest.fixture(scope="module")
def predictor():
    return Predictor(ZeroShot(create("toy", weights="toy", num_frames=4)))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    classes = toy_classes("toy-ucf")
    path = tmp_path_factory.mktemp("long") / "shots.mp4"
    clips = [
        draw_clip(classes[number], f"shot/{at}/{clip}")
        for at, (number, count) in enumerate(SHOTS)
        for clip in range(count)
    ]
    write_video(torch.cat(clips), path)
    return path


def timeline_of(predictor, video, window=3.0, stride=1.5, threshold=None, span=None, **options):
    predictor.set_labels(NAMES)
    asked = Asked(window, stride, topk=3, threshold=threshold)
    return make_timeline(
        predictor, str(video), predictor.read_windows(video, window, stride, span=span), asked, **options
    )


def test_shots_have_their_labels_at_their_times(predictor, video):
    classes = toy_classes("toy-ucf")
    timeline = timeline_of(predictor, video)
    assert [one.label for one in timeline.segments] == [classes[number].name for number, _ in SHOTS]
    changes = 3 * np.cumsum([count for _, count in SHOTS])
    assert np.abs([one.end for one in timeline.segments] - changes).max() <= 1.5
    assert (timeline.start, timeline.end, timeline.length, timeline.stopped) == (0, 27, 27, "")


def test_a_window_is_answered_as_these_seconds_alone(predictor, video):
    for window in timeline_of(predictor, video, 6.5, 6.1).windows:
        alone = predictor(video, NAMES, topk=3, start=window.span.start, end=window.span.end)
        assert [one.label for one in window.answer.predictions] == [one.label for one in alone]
        assert [one.probability for one in window.answer.predictions] == pytest.approx(
            [one.probability for one in alone], abs=1e-5
        )


def test_what_is_too_improbable_is_none_of_these(predictor, video):
    timeline = timeline_of(predictor, video, threshold=1.0)
    assert [(one.status, one.start, one.end) for one in timeline.segments] == [("none", 0, 27)]


def test_a_part_alone(predictor, video):
    timeline = timeline_of(predictor, video, span=Span(7, 14))
    assert (timeline.segments[0].start, timeline.segments[-1].end) == (7, 14)
    assert {one.label for one in timeline.segments} == {toy_classes("toy-ucf")[5].name}


def test_what_is_kept_of_a_truncated_file(predictor, video, tmp_path):
    path = tmp_path / "cut.mp4"
    import av

    with av.open(str(video)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    timeline = timeline_of(predictor, truncate(path, 0.6))
    assert "truncated: its header says 216 frames" in timeline.stopped
    assert 3 < timeline.end < 27
    assert timeline.segments[-1].end == timeline.end


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_what_is_kept_when_it_is_stopped(predictor, video, stop):
    def see(span, _):
        if span.start >= 9:
            raise stop

    timeline = timeline_of(predictor, video, stride=0.5, see=see)
    assert timeline.interrupted
    assert 11 <= timeline.end < timeline.length == 27  # all windows that were read before
    assert timeline.segments


def test_scores_of_a_damaged_model_are_an_error(predictor, video):
    class Damaged:
        crops = 1

        def score(self, videos):
            return type("Scores", (), {"probabilities": np.full((len(videos), 2), np.nan, np.float32)})

    with pytest.raises(UserError, match="not finite"):
        make_timeline(Damaged(), str(video), predictor.read_windows(video, 3, 3), Asked(3, 3))


def test_json_and_csv(predictor, video, tmp_path):
    timeline = timeline_of(predictor, video)
    write_json(tmp_path / "a.json", timeline, "toy")
    write_csv(tmp_path / "a.csv", timeline)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content == to_json(timeline, "toy")
    assert content["complete"]
    assert len(content["windows"]) == 17
    assert {len(window["topk"]) for window in content["windows"]} == {3}
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["start"]), float(row["end"]), row["label"]) for row in rows] == [
        (one.start, one.end, one.label) for one in timeline.segments
    ]
