"""Values of settings and lists of numbers, read from the command line."""

from __future__ import annotations

import argparse

import pytest

from pipelines.config.values import parse_value, whole_numbers
from vlmodels.errors import UserError


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("3", int, 3),
        ("1e-3", float, 1e-3),
        ("Yes", bool, True),
        ("off", bool, False),
        ("None", str | None, None),
        ("x", str | None, "x"),
        ("(a, b,)", tuple[str, ...], ("a", "b")),
        ("", tuple[str, ...], ()),
    ],
)
def test_values_are_read_by_their_type(text, hint, value):
    assert parse_value(text, hint, "key") == value


def test_a_value_of_another_type_is_named():
    with pytest.raises(UserError, match="key='x' is not a whole number"):
        parse_value("x", int, "key")


def test_whole_numbers():
    assert whole_numbers("3,1,2,1") == (3, 1, 2)
    with pytest.raises(argparse.ArgumentTypeError, match="write 1,2,3"):
        whole_numbers("1,x")
    with pytest.raises(argparse.ArgumentTypeError, match="from 1"):
        whole_numbers("1,0", least=1)
