"""The lists of a run as MLflow's inputs."""

from __future__ import annotations

from dataclasses import replace

from pipelines.protocols.split import EvalSet, Example, Split
from pipelines.runs.data_inputs import LONGEST_DIGEST, inputs_of, mlflow_inputs

TESTS = (
    EvalSet("base", ("a", "b"), (Example("3", 0),), unscored=(("x.mp4", "cut"),)),
    EvalSet("other/val", ("c", "d"), (Example("4", 1),), data="s3://bucket/other"),
)
SPLIT = Split("b2n", 1, ("a", "b"), (Example("1", 0), Example("2", 1)), (), TESTS, "list", dataset="set", content="c")


def test_each_list_has_its_use_its_source_and_its_size():
    found = [(one.context, one.name, one.source, one.clips) for one in inputs_of(SPLIT, "s3://me:key@b/data?k=1")]
    assert found == [
        ("train", "set/train", "s3://b/data", 2),
        ("test", "set/base", "s3://b/data", 2),
        ("test", "other/val", "s3://bucket/other", 1),
    ]
    assert [one.context for one in inputs_of(SPLIT, "data", test=False)] == ["train"]


def test_a_digest_is_of_the_clips_of_its_list_alone():
    before = {one.name: one.digest for one in inputs_of(SPLIT, "data")}
    assert all(0 < len(digest) <= LONGEST_DIGEST for digest in before.values())
    assert {one.name: one.digest for one in inputs_of(SPLIT, "moved")} == before
    changed = replace(SPLIT, train=SPLIT.train[:1])
    after = {one.name: one.digest for one in inputs_of(changed, "data")}
    assert [name for name in before if before[name] != after[name]] == ["set/train"]


def test_mlflow_gets_data_sets_without_data():
    made = mlflow_inputs(inputs_of(SPLIT, "/data/set"))
    assert [one.dataset.name for one in made] == ["set/train", "set/base", "other/val"]
    assert {tag.key: tag.value for tag in made[0].tags} == {"mlflow.data.context": "train", "clips": "2"}
    assert "/data/set" in made[0].dataset.source
