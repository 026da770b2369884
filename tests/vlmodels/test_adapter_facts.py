from __future__ import annotations

import json

import pytest

from tests.helpers.tiny_clip import CLASSES, tiny_backbone, tiny_method
from vlmodels.adapter_facts import parse_facts
from vlmodels.checkpoint import about_adapter, load_adapter, load_into, load_tensors, save_adapter, save_tensors
from vlmodels.errors import UserError
from vlmodels.methods.msta import MSTA

FACTS = {
    "format": 1,
    "method": "msta",
    "config": {"dims": 8, "layers": "2-3"},
    "backbone": {"name": "tiny", "weights": "", "frames": 4, "digest": "0" * 64},
    "classes": ["a", "b"],
}


def test_facts_of_an_earlier_version_are_read():
    facts = parse_facts(json.dumps(FACTS | {"more": 1}), "x")
    assert (facts.classes, facts.built_for_classes, facts.extra, facts.backbone.file) == (("a", "b"), True, {}, None)


def without(*path):
    facts = json.loads(json.dumps(FACTS))
    owner = facts
    for part in path[:-1]:
        owner = owner[part]
    del owner[path[-1]]
    return json.dumps(facts)


def changed(name, value):
    facts = json.loads(json.dumps(FACTS))
    owner, _, key = name.rpartition(".")
    (facts[owner] if owner else facts)[key] = value
    return json.dumps(facts)


WRONG = [
    "",
    "{}",
    "[]",
    "null",
    "not JSON",
    "[" * 100_000,
    '{"a":' * 100_000,
    *(without(name) for name in ("format", "method", "config", "backbone", "classes")),
    *(without("backbone", name) for name in ("name", "weights", "frames", "digest")),
    changed("format", "1"),
    changed("format", 2),
    changed("format", True),
    changed("method", None),
    changed("method", ["msta"]),
    changed("method", "x" * 10**6),
    changed("config", []),
    changed("classes", "ab"),
    changed("classes", [1, 2]),
    changed("classes", {"a": 1}),
    *(changed("classes", ["a", f"b{character}c"]) for character in "\n\r\t\x1b\x00\x85\ud800\u2028\u202e"),
    changed("method", "ms\x1bta"),
    changed("backbone.name", "toy\n"),
    changed("built_for_classes", "yes"),
    changed("extra", []),
    changed("backbone", "toy"),
    changed("backbone.name", 3),
    changed("backbone.weights", None),
    changed("backbone.weights", {"path": "x"}),
    changed("backbone.frames", 0),
    changed("backbone.frames", -4),
    changed("backbone.frames", 10**30),
    changed("backbone.frames", 4.5),
    changed("backbone.frames", "4"),
    changed("backbone.digest", "x"),
    changed("backbone.digest", 7),
    changed("backbone.file", {"bytes": "1", "sha256": "0" * 64}),
    changed("backbone.file", {"bytes": 1, "sha256": "../x"}),
    changed("backbone.file", "0" * 64),
    '{"format": ' + "9" * 5000 + "}",
]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_wrong_metadata_is_one_line_that_names_the_file(tmp_path, text):
    path = save_adapter(tmp_path, tiny_method(MSTA, MSTA.Config(dims=8, layers="2-3")))
    save_tensors(path, load_tensors(path), {"vidadapt": text})
    method = tiny_method(MSTA, MSTA.Config(dims=8, layers="2-3"))
    for read in (
        lambda: load_adapter(tmp_path, tiny_backbone()),
        lambda: load_adapter(tmp_path),
        lambda: about_adapter(path.read_bytes(), str(path)),
    ):
        with pytest.raises(UserError, match=r"adapter\.safetensors is not a whole adapter.*copy or train") as caught:
            read()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600 + len(str(path))
    with pytest.raises(UserError, match="the adapter to start from"):
        load_into(method, path.read_bytes())


@pytest.mark.parametrize(
    "config",
    [{"dims": "8"}, {"dims": 8.5}, {"dims": -1}, {"dims": None}, {"layers": "1-" + "9" * 5000}, {"layers": ["1"]},
     {"dims": {"a": [1]}},
     {"strange": 1}, {"scale": [1.0]}, {"template": "{0.__class__}"}],
)  # fmt: skip
def test_wrong_settings_are_one_line(tmp_path, config):
    path = save_adapter(tmp_path, tiny_method(MSTA, MSTA.Config(dims=8, layers="2-3")))
    facts = json.loads(about_adapter(path.read_bytes()).to_json())
    facts["config"] |= config
    save_tensors(path, load_tensors(path), {"vidadapt": json.dumps(facts)})
    with pytest.raises(UserError):
        load_adapter(tmp_path, tiny_backbone())
    assert CLASSES
