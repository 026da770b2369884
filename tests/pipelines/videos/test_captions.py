"""Captions: small files of the exact published forms, our own two forms, and mistakes named with file and line."""

from __future__ import annotations

import csv
import io
import json
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.videos.captions import paragraphs, read_captions, write_captions
from tests.helpers.list_files import put
from vlmodels.errors import UserError


def refused(place, message, dataset=None):
    with pytest.raises(UserError, match=re.escape(message)):
        read_captions(place, dataset)


# ----------------------------------------------------------------------------------------------------- MSR-VTT


@pytest.fixture
def msrvtt(tmp_path):
    """MSR-VTT of 10 videos, scaled by 1,000: 9 of 20 captions train, one of them with one caption is 1k-A."""
    videos = [
        {
            "video_id": f"video{i}",
            "category": 9,
            "url": "u",
            "start time": 1.5,
            "end time": 2.5,
            "id": i,
            "split": split,
        }
        for i, split in enumerate(["train"] * 6 + ["validate"] + ["test"] * 3)
    ]
    sentences = [
        {"caption": f"a man, number {k}, drives video {i}", "video_id": f"video{i}", "sen_id": 20 * i + k}
        for k in range(20)  # the published file goes through the videos several times too
        for i in range(10)
    ]
    data = {"info": {"year": "2016"}, "videos": videos, "sentences": sentences}
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps(data))
    (tmp_path / "MSRVTT_train.9k.csv").write_text("video_id\n" + "".join(f"video{i}\n" for i in range(9)))
    (tmp_path / "MSRVTT_train.7k.csv").write_text("video_id\r\n" + "".join(f"video{i}\r\n" for i in range(7)))
    test = 'key,vid_key,video_id,sentence\nret0,msr9770,video9,"a person connects something, carefully"\n'
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text(test)
    return tmp_path


def test_msrvtt(msrvtt):
    found = read_captions(msrvtt)
    assert {split: len(videos) for split, videos in found.items()} == {
        "train": 9,
        "train_7k": 7,
        "test": 1,
        "test_full": 3,
    }
    assert found["test"] == {"video9": ("a person connects something, carefully",)}
    assert sum(len(sentences) for sentences in found["train"].values()) == 9 * 20
    assert found["train"]["video3"] == tuple(f"a man, number {k}, drives video 3" for k in range(20))
    assert list(found["test_full"]) == ["video7", "video8", "video9"]
    assert not found["train_7k"].keys() & found["test_full"].keys()
    for place in (msrvtt / "MSRVTT_data.json", msrvtt / "MSRVTT_JSFUSION_test.csv"):
        assert read_captions(place, "MSR-VTT") == found  # any of its files stands for all


def test_msrvtt_in_parts(msrvtt):
    (msrvtt / "MSRVTT_train.9k.csv").unlink()
    assert list(read_captions(msrvtt)) == ["train_7k", "test", "test_full"]
    (msrvtt / "MSRVTT_train.7k.csv").write_text("video_id\nvideo1\nvideo77\n")
    refused(msrvtt, "MSRVTT_train.7k.csv:3: no captions of 'video77' (did you mean 'video7'?)")
    (msrvtt / "MSRVTT_data.json").unlink()
    refused(msrvtt, "MSRVTT_data.json is not there")
    (msrvtt / "MSRVTT_train.7k.csv").unlink()
    assert list(read_captions(msrvtt)) == ["test"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("MSRVTT_data.json", '{"videos": []}', 'MSRVTT_data.json: expected {"videos": [...], "sentences": [...]}'),
        ("MSRVTT_data.json", '{"videos": [],\n"sentences": [}', "MSRVTT_data.json:2: not JSON"),
        (
            "MSRVTT_data.json",
            '{"videos": [], "sentences": [{"video_id": "video0", "caption": " "}]}',
            "MSRVTT_data.json, sentence 1: caption is blank",
        ),
        ("MSRVTT_train.9k.csv", "id\nvideo1\n", "MSRVTT_train.9k.csv:1: no column video_id in the header 'id'"),
        (
            "MSRVTT_JSFUSION_test.csv",
            "key,vid_key,video_id,sentence\nret0,msr1,video1,a man, a dog\n",
            "MSRVTT_JSFUSION_test.csv:2: 5 cells where the header has 4; quote captions with commas",
        ),
    ],
)
def test_msrvtt_broken(msrvtt, file, content, message):
    (msrvtt / file).write_text(content)
    refused(msrvtt, message)


# -------------------------------------------------------------------------------------------------------- MSVD

MSVD = {
    "train": {"mv89psg6zh4_33_46": ("a bird in a sink", "a bird bathes")},
    "val": {"-4wsuPCjDBc_5_15": ("a squirrel eats",)},
    "test": {"R0KvbPWsJKI_1_9": ("a man is playing a guitar", "someone plays")},
}
ALL = {video: sentences for videos in MSVD.values() for video, sentences in videos.items()}


def msvd_descriptions(folder):
    text = "# Microsoft Research Video Description Corpus\n\n" + "".join(
        f"{video} {caption}\n" for video, sentences in ALL.items() for caption in sentences
    )
    (folder / "AllVideoDescriptions.txt").write_text(text)


def msvd_tokens(folder):
    (folder / "raw-captions.json").write_text(
        json.dumps({v: [c.split() for c in sentences] for v, sentences in ALL.items()})
    )


def msvd_strings(folder):
    (folder / "raw-captions.json").write_text(json.dumps(ALL))


def msvd_corpus(folder):
    header = "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description"
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header.split(","))
    for video, sentences in ALL.items():
        name, start, end = video.rsplit("_", 2)
        for language, caption in (("German", "ein Vogel"), ("English", ""), *(("English", c) for c in sentences)):
            writer.writerow([name, start, end, 882, "unverified", 55, language, caption])
    (folder / "video_corpus.csv").write_text(text.getvalue(), newline="")


def msvd_lists(folder):
    for split, videos in MSVD.items():
        (folder / f"{split}_list.txt").write_text("\n".join(videos))  # no final newline


@pytest.mark.parametrize("write", [msvd_descriptions, msvd_tokens, msvd_strings, msvd_corpus])
def test_msvd(tmp_path, write):
    msvd_lists(tmp_path)
    write(tmp_path)
    assert read_captions(tmp_path) == MSVD


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle ran",))


def test_msvd_pickles_are_never_opened(tmp_path):
    msvd_lists(tmp_path)
    refused(tmp_path, "no captions of MSVD")
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps(Bomb()))
    refused(tmp_path, "raw-captions.pkl: a pickle can run any code")
    refused(tmp_path, "open('raw-captions.json', 'w')")


def test_msvd_ids_without_captions_are_named(tmp_path):
    msvd_lists(tmp_path)
    msvd_tokens(tmp_path)
    (tmp_path / "val_list.txt").write_text("-4wsuPCjDBc_5_15\n\nabc_1_2\n")
    refused(tmp_path, "val_list.txt:3: no captions of 'abc_1_2'")


# ----------------------------------------------------------------------------------------- LSMDC, DiDeMo, ViCLIP


def test_lsmdc(tmp_path):
    clip = "0001_American_Beauty_00.00.51.926-00.00.54.129"
    line = f'{clip}\t00:00:51.926\t00:00:54.129\t00:00:51\t00:00:54\tSomeone says "hi", and\'s gone.\r\n'
    (tmp_path / "LSMDC16_annos_training.csv").write_text(line, newline="")
    (tmp_path / "LSMDC16_challenge_1000_publictect.csv").write_text(line.replace("0001", "1052"))
    found = read_captions(tmp_path, "LSMDC")
    assert found == {
        "train": {clip: ('Someone says "hi", and\'s gone.',)},
        "test": {clip.replace("0001", "1052"): ('Someone says "hi", and\'s gone.',)},
    }
    (tmp_path / "LSMDC16_annos_val.csv").write_text(f"{line}{clip}\t1\t2\t3\tno sentence\n")
    refused(tmp_path, "LSMDC16_annos_val.csv:2: 5 fields between tabs where LSMDC's files have 6")


def test_didemo_is_retrieved_by_paragraph(tmp_path):
    items = [
        {"annotation_id": 1, "video": "a@N02_1_2.mov", "description": "a cat walks", "times": [[0, 0]]},
        {"annotation_id": 2, "video": "b@N02_1_2.avi", "description": "it rains", "times": [[1, 1]]},
        {"annotation_id": 3, "video": "a@N02_1_2.mov", "description": "it sits", "times": [[2, 3]]},
    ]
    (tmp_path / "test_data.json").write_text(json.dumps(items))
    expected = {"test": {"a@N02_1_2.mov": ("a cat walks it sits",), "b@N02_1_2.avi": ("it rains",)}}
    assert read_captions(tmp_path) == expected
    del items[1]["description"]
    (tmp_path / "train_data.json").write_text(json.dumps(items))
    refused(tmp_path, "train_data.json, entry 2: description is not a text")


def test_viclip_lists(tmp_path):
    train = [{"video": "x/1.mp4", "caption": ["one", "two"]}, {"video": "2.mp4", "caption": "three"}]
    (tmp_path / "msrvtt_ret_train9k.json").write_text(json.dumps(train))
    (tmp_path / "msrvtt_ret_test1k.json").write_text(json.dumps(train[1:]))
    found = read_captions(tmp_path, "msrvtt")
    assert found == {"test": {"2.mp4": ("three",)}, "train": {"x/1.mp4": ("one", "two"), "2.mp4": ("three",)}}
    assert read_captions(tmp_path, "didemo")["train"]["x/1.mp4"] == ("one two",)
    assert read_captions(tmp_path / "msrvtt_ret_test1k.json") == {"test": {"2.mp4": ("three",)}}
    (tmp_path / "other_train.json").write_text(json.dumps([*train, "video"]))
    refused(tmp_path / "other_train.json", 'other_train.json, entry 3: expected an object, found "video"')
    (tmp_path / "other_train.json").write_text(json.dumps(train))
    refused(tmp_path, "captions of the split 'train' too; keep one")


# ------------------------------------------------------------------------------------------------------- our own

OWN = {"train": {"a b.mp4": ["one", "two, three"], "d/c#.mp4": ["four"]}, "test": {"e.mp4": ["fünf"]}}


@pytest.mark.parametrize("name", ["captions.json", "captions.csv"])
def test_own_forms(tmp_path, name):
    if name == "captions.json":
        write_captions(tmp_path / name, OWN)
    else:
        rows = [
            f'{v},"{c}",{split}' for split, videos in OWN.items() for v, sentences in videos.items() for c in sentences
        ]
        (tmp_path / name).write_text("\ufeffvideo,caption,split\n" + "\n".join(rows), encoding="utf-8")
    expected = {split: {v: tuple(sentences) for v, sentences in videos.items()} for split, videos in OWN.items()}
    assert read_captions(tmp_path) == read_captions(tmp_path / name) == expected
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_own_captions_without_splits(tmp_path):
    (tmp_path / "mine.csv").write_text("caption,video\none,a\ntwo,a\nthree,b\n")
    (tmp_path / "mine.json").write_text('{"a": ["one", "two"], "b": ["three"]}')
    for name in ("mine.csv", "mine.json"):
        assert read_captions(tmp_path / name) == {"all": {"a": ("one", "two"), "b": ("three",)}}


texts = st.text(min_size=1).map(str.strip).filter(bool)


@given(
    captions=st.dictionaries(
        texts, st.dictionaries(texts, st.lists(texts, min_size=1, max_size=3), min_size=1, max_size=3), min_size=1
    )
)
def test_what_is_written_is_read(tmp_path_factory, captions):
    path = tmp_path_factory.mktemp("own") / "captions.json"
    write_captions(path, captions)
    plain = {split: {v: tuple(sentences) for v, sentences in videos.items()} for split, videos in captions.items()}
    assert read_captions(path) == plain
    joined = paragraphs(plain)
    assert all(sentences == (" ".join(plain[s][v]),) for s, videos in joined.items() for v, sentences in videos.items())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", '{"train": {"a": ["x"],\n "a": ["y"]}}', "c.json: 'a' is there twice in one object"),
        ("c.json", '{"train": {"a": "x"}}', "c.json, split 'train': expected {"),
        ("c.json", '{"train": {"a": []}}', "with a caption for each video"),
        ("c.json", '{"train": {"a": ["x", ""]}}', "c.json, split 'train', video 'a': caption is blank"),
        ("c.json", '{"train": {"a": [1]}}', "caption is not a text"),
        ("c.json", '{\n"train" {', "c.json:2: not JSON"),
        ("c.json", "3", "c.json: expected a list of objects"),
        ("c.json", "{}", "c.json: no captions in it"),
        ("c.json", b"\xff\xfe", "c.json: not a text file in UTF-8"),
        ("c.csv", "video;caption\na;x\n", "c.csv:1: no column video, caption in the header"),
        ("c.csv", 'video,caption\na,"x\ny"\nb,\n', "c.csv:4: caption is blank"),
        ("c.csv", "video,caption\na,x,y\n", "c.csv:2: 3 cells where the header has 2"),
        ("c.csv", "video,caption\n", "c.csv: no captions in it"),
        ("c.pkl", "", "c.pkl: captions are a .json or a .csv file"),
    ],
)
def test_mistakes_name_their_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(tmp_path / name, message)


def test_places_without_captions(tmp_path):
    refused(tmp_path, "it should hold captions.json, captions.csv, MSRVTT_train.9k.csv")
    refused(tmp_path / "no", "no: no such file or folder")
    refused(tmp_path, "unknown data set 'msrvt' of captions (did you mean 'msrvtt'?)", "msrvt")


def test_captions_of_parts_of_videos(tmp_path):
    csv_file = put(tmp_path / "c.csv", "video,caption,start_s,end_s\na.mp4,one,0,2\na.mp4,two,2,4.5\nb.mp4,whole,,\n")
    assert read_captions(csv_file) == {
        "all": {"a.mp4 [0.0-2.0 s]": ("one",), "a.mp4 [2.0-4.5 s]": ("two",), "b.mp4": ("whole",)}
    }
    entries = [{"video": "a.mp4", "caption": ["one", "uno"], "time_start": 0, "time_end": 2}]
    json_file = put(tmp_path / "j.json", json.dumps(entries))
    assert read_captions(json_file) == {"all": {"a.mp4 [0.0-2.0 s]": ("one", "uno")}}
    with pytest.raises(UserError, match=r"c\.csv:2: wrong times: its end 1 is not after"):
        read_captions(put(tmp_path / "c.csv", "video,caption,start_s,end_s\na.mp4,one,2,1\n"))
