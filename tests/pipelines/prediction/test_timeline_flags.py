from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from pipelines.prediction.timeline_flags import TimelineRequest, add_timeline_flags, timeline_request


def parse(*flags):
    parser = argparse.ArgumentParser()
    add_timeline_flags(parser)
    return timeline_request(parser, parser.parse_args(flags))


def test_a_stride_is_half_a_window_by_default():
    assert parse("--window", "4") == TimelineRequest(4, 2, Path("timelines"))
    assert parse("--window", "4", "--stride", "4", "--timeline", "out") == TimelineRequest(4, 4, Path("out"))
    assert parse() is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--window 0", "--window 0: choose a number of seconds above 0"),
        ("--window nan", "--window nan"),
        ("--window inf", "--window inf"),
        ("--window 4 --stride -1", "--stride -1"),
        ("--window 4 --stride 5", "--stride 5 is longer than --window 4"),
        ("--stride 2", "add --window"),
        ("--timeline out", "add --window"),
    ],
)
def test_what_is_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        parse(*flags.split())
    assert message in capsys.readouterr().err
