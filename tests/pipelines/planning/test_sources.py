"""How data are named, so that any machine finds them."""

from __future__ import annotations

import hashlib

import pytest
from pyarrow import fs

from pipelines.config.schema import BackboneConfig, DataConfig, ProtocolConfig, TrainConfig
from pipelines.planning import sources
from pipelines.planning.identity import weights_digest
from pipelines.protocols.make_split import make_split
from pipelines.storage.place import Place
from vlmodels.errors import UserError


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ("a=b", ("a", "b")),
        ("s3://b/a?x=1", ("", "s3://b/a?x=1")),
        ("n=s3://b?x=1", ("n", "s3://b?x=1")),
        ("b", ("", "b")),
    ],
)
def test_names_of_tested_data(item, named):
    assert sources.named_test(item) == named


@pytest.mark.parametrize("item", ["X" * 300 + "=DATA", "NAME=" + "X" * 300, "X" * 300])
def test_names_longer_than_a_file_can_have(item, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        sources.open_sources(TrainConfig(protocol=ProtocolConfig(tests=(item,))))


def test_a_name_that_is_missing_before_the_equals_sign(tmp_path):
    with pytest.raises(UserError, match=f"--test ={tmp_path}: a name is missing"):
        sources.open_sources(TrainConfig(protocol=ProtocolConfig(tests=(f"={tmp_path}",))))


def test_a_plan_names_data_by_what_opens_it_anywhere(here, videos, s3, tmp_path):
    folder, uri = tmp_path / "out", f"{s3}/data set"
    here.ingest(videos, folder)
    for copy in (uri, f"{s3}/k400"):
        place = Place.open(copy)
        fs.copy_files(str(folder), place.root, fs.LocalFileSystem(), place.filesystem)
    tests = (f"one={s3}/k400?region=us-east-1", str(folder))
    config = TrainConfig(
        data=DataConfig(dir=uri), protocol=ProtocolConfig(name="zero_shot", tests=tests, allow_leak=True)
    )
    stores, opened = sources.open_sources(config)
    assert [store.uri for store in stores] == [uri, f"{s3}/k400?region=us-east-1", str(folder)]
    assert [source.name for source in opened] == ["data set", "one", "out"]
    config = sources.with_absolute_paths(config, stores[0])
    assert (config.data.dir, config.protocol.tests) == (uri, tests)
    split = make_split(config.protocol, opened[0], 0, tests=opened[1:])
    named = [test.data for test in sources.portable(split, stores).tests]
    assert named == [f"{s3}/k400?region=us-east-1", str(folder)]


def test_a_tag_stays_a_tag_where_a_file_is_called_like_it(here, videos, tmp_path, monkeypatch):
    """A file of that name in the folder of one of two machines would change weights, and the name of the run."""
    here.ingest(videos, tmp_path / "out")
    store = sources.open_sources(TrainConfig(data=DataConfig(dir=str(tmp_path / "out"))))[0][0]
    (tmp_path / "openai").write_bytes(b"weights of another model")
    (tmp_path / "own.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)

    def named(weights):
        config = TrainConfig(backbone=BackboneConfig(name="ViT-B/16", pretrained=weights))
        return sources.with_absolute_paths(config, store).backbone.pretrained

    assert (named("openai"), weights_digest(named("openai"))) == ("openai", "openai")
    assert named("own.safetensors") == str(tmp_path / "own.safetensors")
    assert weights_digest(named("own.safetensors")) == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("name", ["base", "ucf101/val2", "my data", "a.b-c_d", "données", "test"])
def test_names_of_test_sets_that_can_be_used_everywhere(name):
    assert sources.name_problem(name) == ""


@pytest.mark.parametrize(
    "name",
    [
        "my data (1)",
        "../x",
        "a $b$",
        "",
        ".",
        "..",
        "a/../b",
        "/a",
        "a/",
        "select",
        "hm",
        "a@b",
        "a\nb",
        " a",
        "a:b",
        "x" * 101,
    ],
)
def test_names_of_test_sets_that_fail_late_are_refused(name):
    assert sources.name_problem(name).startswith(f"test set {name!r}: its name ")


@pytest.mark.parametrize("name", ["my data (1)", "a $b$", "../x"])
def test_they_are_refused_in_the_plan(here, videos, tmp_path, name):
    here.ingest(videos, tmp_path / "data")
    config = TrainConfig(protocol=ProtocolConfig(name="zero_shot", tests=(f"{name}={tmp_path}/data",)))
    problems = []
    assert sources.open_data(config, problems) is None
    assert "NAME=DIR" in problems[0]
    assert name in problems[0]
