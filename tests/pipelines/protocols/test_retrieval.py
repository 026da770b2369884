"""Which captioned videos train and which are ranked."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.protocols.make_split import make_split
from tests.helpers.fakes import folder_clips
from tests.helpers.protocol_cases import config, source
from vlmodels.errors import UserError

# ------------------------------------------------------------------------------------------------------ retrieval


def test_retrieval_has_an_example_for_every_caption(captioned):
    broken = [dataclasses.replace(c, ok=i != 39) for i, c in enumerate(folder_clips())]
    split = make_split(captioned, source(broken), seed=1)
    assert len(split.train) == len(split.captions) == 31
    captions = {split.captions[e.target] for e in split.train if e.clip_id == folder_clips()[0].clip_id}
    assert captions == {"clap 0", "another"}
    (test,) = split.tests
    assert (len(test.examples), test.n_listed, test.lost_captions) == (9, 10, 1)
    assert test.captions[0] == ("walk 30",)


def test_retrieval_holds_out_videos_not_captions(captioned):
    split = make_split(dataclasses.replace(captioned, holdout=0.2), source(), seed=1)
    held = {e.clip_id for e in split.select}
    assert held
    assert len(held) == len(split.select)
    assert not held & {e.clip_id for e in split.train}


def test_captioned_test_videos_that_are_not_there_count_as_lost(captioned):
    split = make_split(captioned, source(folder_clips()[:-2]), seed=1)
    (test,) = split.tests
    assert (len(test.examples), test.n_listed, test.lost_captions) == (8, 10, 2)
    assert test.unscored[0] == (folder_clips()[-2].uri, "never ingested")


def test_videos_that_are_trained_on_and_tested_are_refused(captioned, tmp_path):
    with (tmp_path / "captions.csv").open("a") as file:
        file.write(f"{folder_clips()[0].uri},again,test\n")
    with pytest.raises(UserError, match="1 videos have captions in train and in test too"):
        make_split(captioned, source(), seed=1)
    assert make_split(dataclasses.replace(captioned, allow_leak=True), source(), seed=1).tests[0].n_listed == 11


def test_captions_without_a_split_get_one_that_keeps_groups_whole(tmp_path):
    (tmp_path / "c.csv").write_text("video,caption\n" + "".join(f"{c.uri},x\n" for c in folder_clips()))
    split = make_split(config("retrieval", captions=str(tmp_path / "c.csv")), source(), seed=1)
    groups = {c.clip_id: c.group for c in folder_clips()}
    train, test = ({groups[e.clip_id] for e in part} for part in (split.train, split.tests[0].examples))
    assert train
    assert test
    assert not train & test


def test_retrieval_without_captions_says_where_they_would_be():
    with pytest.raises(UserError, match=r"captions.json is not there; pass --captions FILE"):
        make_split(config("retrieval"), source(), seed=1)
