"""Captions of videos for text-video retrieval: published files as they are, and our own two forms.

Own captions are ``captions.json``, ``{"train": {video: [caption, ...]}, "test": {...}}``, or a CSV with the header
``video,caption`` or ``video,caption,split``, a line for each caption. Without splits, all is in the split ``all``.

Names of videos stay as they are written: a path, a file name, or (MSR-VTT, MSVD, LSMDC) a file name without its suffix.
Whoever looks for the files compares whole names before stems, as LSMDC's names hold dots.

| data set | splits | videos | captions of a video |
|---|---|---|---|
| MSR-VTT | train (9k), train_7k, test (1k-A), test_full | 9,000, 7,010, 1,000, 2,990 | 20, 20, 1, 20 |
| MSVD | train, val, test | 1,200, 100, 670 | about 40 |
| LSMDC | train, val, test | about 101,000, 7,408, 1,000 | 1 |
| DiDeMo | train, val, test | 8,395, 1,065, 1,004 | 1, its descriptions joined |
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.storage.files import write_whole
from vlmodels.errors import UserError, nearest

Captions = dict[str, dict[str, tuple[str, ...]]]
"""Split -> video -> its captions, in the files' order."""

UNSPLIT = "all"

_OWN = ("captions.json", "captions.csv")
_LISTS = {split: f"{split}_list.txt" for split in ("train", "val", "test")}
_LSMDC = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
_DIDEMO = {split: f"{split}_data.json" for split in ("train", "val", "test")}
_MSRVTT = {
    "train": "MSRVTT_train.9k.csv",
    "train_7k": "MSRVTT_train.7k.csv",
    "test": "MSRVTT_JSFUSION_test.csv",
    "test_full": "MSRVTT_data.json",
}
_CONVERT = (
    'python -c "import json, pickle; '
    "json.dump(pickle.load(open('raw-captions.pkl', 'rb')), open('raw-captions.json', 'w'))\""
)


def read_captions(place: str | Path, dataset: str | None = None) -> Captions:
    """Read captions of a data set.

    MSR-VTT's ``train`` and ``train_7k`` share videos with ``test_full``: train on the 7k to test on the full split.

    Args:
        place: a folder with a data set's published files, with ``captions.json`` or ``captions.csv``, or with ViCLIP's
            lists (``[{"video": ..., "caption": ...}]``, named after their splits); or one such file.
        dataset: msrvtt, msvd, lsmdc or didemo; by default, the names of the files tell.

    Raises:
        UserError: no captions there, an unknown data set, files that are not of the published form (file and line, or
            entry), a pickle.
    """
    place = Path(place)
    if not place.exists():
        raise UserError(f"{place}: no such file or folder of captions")
    name = dataset.lower().replace("-", "") if dataset else None
    if name is not None and name not in _PUBLISHED:
        raise UserError(
            f"unknown data set '{dataset}' of captions{nearest(name, _PUBLISHED)}; known: {', '.join(_PUBLISHED)}; "
            "leave it out for captions of your own"
        )
    found = _read(place, name)
    if not any(found.values()):
        raise UserError(f"{place}: no captions in it")
    return paragraphs(found) if name == "didemo" else found


def write_captions(path: str | Path, captions: Mapping[str, Mapping[str, Iterable[str]]]) -> None:
    """Write captions in our own JSON form, whole or not at all."""
    plain = {split: {video: list(said) for video, said in videos.items()} for split, videos in captions.items()}
    text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    write_whole(Path(path), lambda part: part.write_text(text, encoding="utf-8"))


def paragraphs(captions: Captions) -> Captions:
    """Join a video's captions to a single one, as paragraph retrieval (DiDeMo) does."""
    return {split: {video: (" ".join(said),) for video, said in videos.items()} for split, videos in captions.items()}


# ---------------------------------------------------------------------------------------------- what is where


def _read(place: Path, name: str | None) -> Captions:
    if place.is_file():
        by_file = next((n for n, (files, _) in _PUBLISHED.items() if place.name in files.values()), None)
        return _PUBLISHED[by_file][1](place.parent) if by_file else _own(place)
    own = next((place / file for file in _OWN if (place / file).is_file()), None)
    if own is not None:
        return _own(own)
    for known, (files, read) in _PUBLISHED.items():
        if name in (None, known) and any((place / file).is_file() for file in files.values()):
            return read(place)
    found: Captions = {}
    for path in sorted(p for p in place.iterdir() if p.suffix == ".json"):
        for split, videos in _own(path).items():
            if split in found:
                raise UserError(f"{path}: another file in {place} has captions of the split '{split}' too; keep one")
            found[split] = videos
    if not found:
        wanted = [*_OWN, *(next(iter(files.values())) for files, _ in _PUBLISHED.values())]
        raise UserError(f"{place}: no captions in this folder; it should hold {', '.join(wanted)} or ViCLIP's JSON")
    return found


# --------------------------------------------------------------------------------------------- published forms


def _msrvtt(folder: Path) -> Captions:
    found: dict[str, dict[str, list[str]]] = {}
    said: dict[str, list[str]] = {}
    data = folder / _MSRVTT["test_full"]
    if data.is_file():
        content = _json(data)
        if not isinstance(content, dict) or not {"videos", "sentences"} <= content.keys():
            raise UserError(f'{data}: expected {{"videos": [...], "sentences": [...]}}')
        for where, item in _entries(data, content["sentences"], "sentence"):
            said.setdefault(_field(item, "video_id", where), []).append(_field(item, "caption", where))
        videos = [(item.get("split"), _field(item, "video_id", w)) for w, item in _entries(data, content["videos"])]
        found["test_full"] = {video: _said_of(video, said, str(data)) for split, video in videos if split == "test"}
    for split in ("train", "train_7k"):
        for where, row in _table(folder / _MSRVTT[split], ("video_id",)):
            if not said:
                raise UserError(f"{data} is not there: it has the captions of {folder / _MSRVTT[split]}")
            found.setdefault(split, {})[row["video_id"]] = _said_of(row["video_id"], said, where)
    for where, row in _table(folder / _MSRVTT["test"], ("video_id", "sentence")):
        found.setdefault("test", {}).setdefault(row["video_id"], []).append(_field(row, "sentence", where))
    return {split: _frozen(found[split]) for split in _MSRVTT if found.get(split)}


def _msvd(folder: Path) -> Captions:
    said = _msvd_captions(folder)
    return {
        split: _frozen({video: _said_of(video, said, where) for where, video in _lines(folder / file)})
        for split, file in _LISTS.items()
        if (folder / file).is_file()
    }


def _msvd_captions(folder: Path) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    if (path := folder / "raw-captions.json").is_file():
        for video, captions in _videos(path, _json(path), path.name).items():
            said[video] = list(captions)
    elif (path := folder / "AllVideoDescriptions.txt").is_file():
        for where, line in _lines(path):
            if not line.startswith("#"):
                video, _, caption = line.partition(" ")
                said.setdefault(video, []).append(_field({"description": caption}, "description", where))
    elif (path := folder / "video_corpus.csv").is_file():
        for _, row in _table(path, ("VideoID", "Start", "End", "Language", "Description")):
            if row["Language"] == "English" and row["Description"]:  # the published file has some that are empty
                said.setdefault(f"{row['VideoID']}_{row['Start']}_{row['End']}", []).append(row["Description"])
    elif (path := folder / "raw-captions.pkl").is_file():
        raise UserError(
            f"{path}: a pickle can run any code and is not opened here; if you trust it, convert it in its folder with "
            f"{_CONVERT}, or give AllVideoDescriptions.txt or video_corpus.csv instead"
        )
    else:
        raise UserError(f"{folder}: no captions of MSVD: raw-captions.json, AllVideoDescriptions.txt, video_corpus.csv")
    return said


def _lsmdc(folder: Path) -> Captions:
    found: Captions = {}
    for split, file in _LSMDC.items():
        videos: dict[str, list[str]] = {}
        for where, line in _lines(folder / file) if (folder / file).is_file() else ():
            fields = line.split("\t")
            if len(fields) != 6:
                raise UserError(f"{where}: {len(fields)} fields between tabs where LSMDC's files have 6")
            videos.setdefault(fields[0], []).append(_field({"SENTENCE": fields[5]}, "SENTENCE", where))
        if videos:
            found[split] = _frozen(videos)
    return found


def _didemo(folder: Path) -> Captions:
    found: Captions = {}
    for split, file in _DIDEMO.items():
        videos: dict[str, list[str]] = {}
        if (path := folder / file).is_file():
            for where, item in _entries(path, _json(path)):
                videos.setdefault(_field(item, "video", where), []).append(_field(item, "description", where))
            found[split] = _frozen(videos)
    return paragraphs(found)


_PUBLISHED: Mapping[str, tuple[Mapping[str, str], Callable[[Path], Captions]]] = {
    "msrvtt": (_MSRVTT, _msrvtt),
    "msvd": (_LISTS, _msvd),
    "lsmdc": (_LSMDC, _lsmdc),
    "didemo": (_DIDEMO, _didemo),
}


def _said_of(video: str, said: Mapping[str, list[str]], where: str) -> list[str]:
    if video not in said:
        raise UserError(f"{where}: no captions of '{video}'{nearest(video, said)}")
    return said[video]


# --------------------------------------------------------------------------------------------------- own forms


def _own(path: Path) -> Captions:
    found: dict[str, dict[str, list[str]]] = {}
    if path.suffix.lower() == ".csv":
        for where, row in _table(path, ("video", "caption")):
            videos = found.setdefault(row.get("split") or UNSPLIT, {})
            videos.setdefault(_field(row, "video", where), []).append(_field(row, "caption", where))
        return {split: _frozen(videos) for split, videos in found.items()}
    if path.suffix.lower() != ".json":
        raise UserError(f"{path}: captions are a .json or a .csv file, or a folder of published files")
    content = _json(path)
    if isinstance(content, dict) and content and all(isinstance(said, list) for said in content.values()):
        return {UNSPLIT: _videos(path, content, path.name)}
    if isinstance(content, dict):
        return {split: _videos(path, videos, f"split '{split}'") for split, videos in content.items()}
    named = re.search("train|val|test", path.stem.lower())
    videos = {}
    for where, item in _entries(path, content):
        said = item.get("caption")
        for caption in said if isinstance(said, list) else [said]:
            videos.setdefault(_field(item, "video", where), []).append(_field({"caption": caption}, "caption", where))
    return {named[0] if named else UNSPLIT: _frozen(videos)}


def _videos(path: Path, content: Any, what: str) -> dict[str, tuple[str, ...]]:
    """``{video: [captions]}``, where a caption is a string or the list of its tokens."""
    if not isinstance(content, dict) or not all(isinstance(said, list) and said for said in content.values()):
        raise UserError(f'{path}, {what}: expected {{"video": ["caption", ...], ...}} with a caption for each video')
    return {
        video: tuple(
            _field({"caption": " ".join(c) if _is_tokens(c) else c}, "caption", f"{path}, {what}, video '{video}'")
            for c in said
        )
        for video, said in content.items()
    }


def _is_tokens(caption: Any) -> bool:
    return isinstance(caption, list) and all(isinstance(token, str) for token in caption)


# ----------------------------------------------------------------------------------------------------- reading


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, stripped, each with where it stands."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def _table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV that has these columns, each with where it stands; none where there is no such file."""
    if not path.is_file():
        return
    rows = csv.reader(io.StringIO(_text(path), newline=""))
    header = [cell.strip() for cell in next(rows, [])]
    if missing := [name for name in columns if name not in header]:
        raise UserError(f"{path}:1: no column {', '.join(missing)} in the header '{','.join(header)}'")
    for cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}:{rows.line_num}"
        if len(cells) != len(header):
            raise UserError(
                f"{where}: {len(cells)} cells where the header has {len(header)}; quote captions with commas"
            )
        yield where, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def _json(path: Path) -> Any:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in found if names.count(name) > 1)
            raise UserError(f"{path}: '{twice}' is there twice in one object; put its captions into one list")
        return found

    try:
        return json.loads(_text(path), object_pairs_hook=distinct)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error


def _entries(path: Path, content: Any, what: str = "entry") -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a list, each with where it stands."""
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a list of objects")
    for number, item in enumerate(content, start=1):
        where = f"{path}, {what} {number}"
        if not isinstance(item, dict):
            raise UserError(f"{where}: expected an object, found {json.dumps(item)[:60]}")
        yield where, item


def _field(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name} is {'blank' if isinstance(value, str) else 'no text'}")
    return value.strip()


def _frozen(videos: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {video: tuple(said) for video, said in videos.items()}
