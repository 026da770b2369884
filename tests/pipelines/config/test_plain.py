"""Plain values: flat keys, and digests that the order of keys does not change."""

from __future__ import annotations

from pipelines.config.plain import digest_of, flatten, to_plain
from pipelines.config.schema import DataConfig


def test_nested_keys_are_joined_by_dots():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}


def test_dataclasses_and_tuples_become_json_values():
    plain = to_plain({"data": DataConfig(dir="x"), "numbers": (1, 2)})
    assert plain["data"]["dir"] == "x"
    assert plain["numbers"] == [1, 2]


def test_a_digest_depends_on_values_and_not_on_the_order_of_keys():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 2, "b": 1})
