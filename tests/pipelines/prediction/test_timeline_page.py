from __future__ import annotations

import html
import re

import numpy as np
import pytest

from pipelines.prediction.segments import NONE, Segment
from pipelines.prediction.strip import MOST, Strip
from pipelines.prediction.timeline import Asked, Timeline
from pipelines.prediction.timeline_page import MOST_SEGMENTS, clock, write_timeline
from vlmodels.span import Span


def page_of(tmp_path, segments, video="some/video.mp4", end=None, stopped="", length=None, strip=None):
    end = segments[-1].end if end is None else end
    timeline = Timeline(video, Asked(4, 2), 0.0, end, length or end, (), tuple(segments), stopped)
    return write_timeline(tmp_path / "a.html", timeline, strip or Strip(10, 0, end), "models:/m@a").read_text()


def strip_of(seconds, window, stride):
    strip = Strip.of(0, seconds, stride)
    frames = np.random.default_rng(0).integers(0, 255, (1, 2, 256, 448, 3), np.uint8)
    for number in range(int((seconds - window) / stride) + 1):
        strip.see(Span(number * stride, number * stride + window), frames)
    return strip


def test_segments_are_on_the_axis_and_in_the_table(tmp_path):
    page = page_of(tmp_path, [Segment(0, 30, "walking", 0.9), Segment(30, 40, NONE, 0.2, none=True)])
    assert page.count('href="#r1"') == page.count('id="r1"') == 1
    assert "left:75.0000%;width:25.0000%" in page
    assert NONE in page
    assert "90.0 %" in page


def test_nothing_comes_from_elsewhere_and_names_are_escaped(tmp_path):
    label = "<script>alert('\"&')</script>"
    page = page_of(tmp_path, [Segment(0, 4, label, 0.5)], video="a\udcff<b>.mp4", strip=strip_of(4, 4, 2))
    assert "<script" not in page
    assert html.escape(label).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    assert "a?&lt;b&gt;.mp4" in page
    addresses = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert {re.match(r"#|data:image/jpeg|a\.(csv|json)$", address) is not None for address in addresses} == {True}


@pytest.mark.parametrize(("seconds", "stride"), [(7200, 2), (86400, 0.5), (40, 2), (4, 2)])
def test_a_page_is_bounded(tmp_path, seconds, stride):
    strip = strip_of(seconds, 4, stride)
    assert 1 <= len(strip.pictures) <= MOST
    middles = [one.seconds for one in strip.pictures]
    gaps = np.diff([-strip.gap / 2, *middles, seconds + strip.gap / 2])  # none covers another, or is cut
    assert gaps.min() >= strip.gap * 0.999
    segments = [Segment(number, number + 1, f"a label {number % 50}", 0.5) for number in range(min(seconds, 5000))]
    page = page_of(tmp_path, segments, strip=strip)
    assert len(page) < 3_000_000
    assert page.count("<tr") == 1 + min(MOST_SEGMENTS, len(segments))


def test_where_and_why_it_ends_early(tmp_path):
    page = page_of(tmp_path, [Segment(0, 30, "a", 1.0)], stopped="damaged: 5 of 9 frames", length=60.0)
    assert "The timeline ends at 0:30.0 of 1:00.0: damaged: 5 of 9 frames" in page
    assert "width:50.0000%" in page
    assert 'class="unread"' in page
    assert "stopped" not in re.sub(
        r"<style>.*?</style>", "", page_of(tmp_path, [Segment(0, 30, "a", 1.0)]), flags=re.DOTALL
    )


def test_a_timeline_without_segments(tmp_path):
    assert "0 segments" in page_of(tmp_path, [], end=0.0, stopped="stopped by Ctrl-C", length=60.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (7.46, "0:07.5"), (59.96, "1:00.0"), (3723.5, "1:02:03.5")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text
