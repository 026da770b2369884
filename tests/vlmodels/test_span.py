"""Parts of videos as text, and times as people write them."""

from __future__ import annotations

import math

import pytest

from vlmodels.errors import UserError
from vlmodels.span import Span, seconds_of, split_name


@pytest.mark.parametrize(
    ("span", "name"),
    [
        (Span(3, 8), "a b.mp4 [3.0-8.0 s]"),
        (Span(0, 2.125), "a b.mp4 [0.0-2.125 s]"),
        (Span(30, 90, "frames"), "a b.mp4 [frames 30-90]"),
    ],
)
def test_a_name_with_its_span_is_read_back(span, name):
    assert span.after("a b.mp4") == name
    assert split_name(name) == ("a b.mp4", span)


@pytest.mark.parametrize("name", ["a.mp4", "a [x].mp4", "a [x]", "a [8.0-3.0 s]", "[3.0-8.0 s]"])
def test_other_names_are_names(name):
    assert split_name(name) == (name, None)


def test_the_rest_of_a_video_has_no_end():
    assert Span(3).text == "3.0-end s"


@pytest.mark.parametrize(
    ("start", "end"), [(-1, 3), (3, 3), (8, 3), (math.nan, 3), (0, math.nan), (math.inf, math.inf)]
)
def test_an_impossible_span_is_refused(start, end):
    with pytest.raises(UserError):
        Span(start, end)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3),
        ("3.25", 3.25),
        (" 3 s", 3),
        ("01:02:03.5", 3723.5),
        ("02:03", 123),
        ("0:00:01,250", 1.25),
        ("3,5", 3.5),
        ("1e2", 100),
    ],
)
def test_times_are_seconds_or_clocks(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1:60", "00:00:01:05", "nan", "inf", "3,500", "1_000"])
def test_what_is_no_time_is_said(text):
    with pytest.raises(UserError, match="is no time"):
        seconds_of(text)
