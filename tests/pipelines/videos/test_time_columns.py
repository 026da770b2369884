"""Columns of times: which they are, in which unit, and which rows are wrong."""

from __future__ import annotations

import pytest

from pipelines.videos.time_columns import read_cuts, time_columns
from vlmodels.errors import UserError
from vlmodels.span import Span

CELLS = (("3", "8"),)


def cuts_of(header, *cells, times=None):
    columns = time_columns(header.split(","), "a.csv:1")
    return read_cuts(columns, cells, times, "a.csv:1")[0]


@pytest.mark.parametrize(
    "header",
    [
        "path,label,time_start,time_end",
        "label,youtube_id,time_start,time_end,split",
        "path,start_s,end_s",
        "path,start_sec,end_sec",
        "start_time,end_time",
        "Start Time,End Time",
        "startTime,endTime",
        "t_start,t_end",
        "start_seconds,stop_seconds",
        "segment_start_time,segment_end_time",
        "start_timestamp,stop_timestamp,start_frame,stop_frame",  # EPIC-Kitchens: the times decide
    ],
)
def test_columns_of_seconds(header):
    assert cuts_of(header, *CELLS)[0].span == Span(3, 8)


@pytest.mark.parametrize("header", ["start_frame,end_frame", "frame_start,frame_end", "begin_frame,stop_frame"])
def test_columns_of_frames(header):
    assert cuts_of(header, *CELLS)[0].span == Span(3, 8, "frames")


def test_milliseconds_are_seconds():
    assert cuts_of("start_ms,end_ms", ("1500", "2250"))[0].span == Span(1.5, 2.25)


@pytest.mark.parametrize(
    "cells", [("3.5", "8"), ("00:00:03", "00:00:08"), ("3.0", "8.0"), ("3s", "8s"), ("3,0", "8,0")]
)
def test_cells_may_show_that_they_are_seconds(cells):
    both = cuts_of("start,end", cells, ("1", "2"))
    assert both[1].span == Span(1, 2)


@pytest.mark.parametrize("cells", [[("3", "8")], [("3.0", "8.0"), ("", "")]])  # pandas writes frames so beside gaps
def test_whole_numbers_without_a_unit_are_refused_unless_the_user_says_it(cells):
    with pytest.raises(
        UserError, match=r"a\.csv:1: columns start and end hold whole numbers.*--times seconds or --times"
    ):
        cuts_of("start,end", *cells)
    assert cuts_of("start,end", *cells, times="seconds")[0].span == Span(3, 8)
    assert cuts_of("start,end", *cells, times="frames")[0].span == Span(3, 8, "frames")


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("path,start", "column 'start'"),
        ("path,end_s", "column 'end_s'"),
        ("start_s,start_time,end_s", "start_s and start_"),
    ],
)
def test_half_a_pair_or_two_are_refused(header, named):
    with pytest.raises(UserError, match=named):
        time_columns(header.split(","), "a.csv:1")


@pytest.mark.parametrize("header", ["path,label", "path,label,starting_point,weekend", "path,label,send,frames"])
def test_other_columns_are_no_times(header):
    assert time_columns(header.split(","), "a.csv:1") is None


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (("8", "3"), "its end 3 is not after its start 8"),
        (("3", "3"), "its end 3 is not after its start 3"),
        (("-1", "3"), "its start -1 is negative"),
        (("3", ""), "a start without an end"),
        (("nan", "3"), "an end without a start"),
        (("3", "inf"), "'inf' is no time"),
        (("three", "8"), "'three' is no time"),
    ],
)
def test_a_wrong_row_has_a_reason(cells, problem):
    wrong, right = cuts_of("start_s,end_s", cells, ("1", "2"))
    assert problem in wrong.problem
    assert wrong.span is None
    assert right.span == Span(1, 2)


def test_a_row_without_times_is_the_whole_video():
    (cut,) = cuts_of("start_s,end_s", ("", "NaN"))
    assert (cut.span, cut.problem) == (None, "")


def test_a_frame_number_is_whole():
    assert "no frame number" in cuts_of("start_frame,end_frame", ("1.5", "3"))[0].problem
