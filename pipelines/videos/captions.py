"""Read captions of videos for text-video retrieval: published files as they are, and our own two forms.

Own captions are ``captions.json``, ``{"train": {video: [caption, ...]}, "test": {...}}``, or a CSV with the header
``video,caption`` or ``video,caption,split``, a line for each caption, perhaps with columns of times (``time_columns``).
Without splits, all are in the split ``all``.

Names of videos stay as they are written: a path, a file name, or (MSR-VTT, MSVD, LSMDC) a file name without its suffix.
To find the files, compare whole names before stems: LSMDC's names hold dots.

| data set | splits | videos | captions of a video |
|---|---|---|---|
| MSR-VTT | train (9k), train_7k, test (1k-A), test_full | 9,000, 7,010, 1,000, 2,990 | 20, 20, 1, 20 |
| MSVD | train, val, test | 1,200, 100, 670 | about 40 |
| LSMDC | train, val, test | about 101,000, 7,408, 1,000 | 1 |
| DiDeMo | train, val, test | 8,395, 1,065, 1,004 | 1, its descriptions joined |

ViLT-CLIP says that it trains on LSMDC's 7,408 validation videos; runs here train on the split train.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.storage.files import write_whole
from pipelines.videos.time_columns import WHOLE, Cut, read_cuts, time_columns
from vlmodels.errors import UserError, nearest
from vlmodels.paths import is_there

Captions = dict[str, dict[str, tuple[str, ...]]]
"""Split -> video -> its captions, in the files' order."""

UNSPLIT = "all"
"""The split of own captions that name no splits."""

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
        dataset: msrvtt, msvd, lsmdc or didemo (default: by the names of the files).

    Raises:
        UserError: no captions there, an unknown data set, files that differ from the published form (file and line, or
            entry), a pickle.
    """
    place = Path(place)
    if not is_there(place):
        raise UserError(f"{place}: no such file or folder of captions")
    name = dataset.lower().replace("-", "") if dataset else None
    if name is not None and name not in _PUBLISHED:
        raise UserError(
            f"unknown data set '{dataset}' of captions{nearest(name, _PUBLISHED)}; known: {', '.join(_PUBLISHED)}; "
            "name none for captions of your own"
        )
    found = _read(place, name)
    if not any(found.values()):
        raise UserError(f"{place}: no captions in it")
    return paragraphs(found) if name == "didemo" else found


def write_captions(path: str | Path, captions: Mapping[str, Mapping[str, Iterable[str]]]) -> None:
    """Write captions in our own JSON form, whole or not at all."""
    plain = {split: {video: list(texts) for video, texts in videos.items()} for split, videos in captions.items()}
    text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    write_whole(Path(path), lambda part: part.write_text(text, encoding="utf-8"))


def paragraphs(captions: Captions) -> Captions:
    """Join the captions of each video to a single one, as paragraph retrieval (DiDeMo) does."""
    return {split: {video: (" ".join(texts),) for video, texts in videos.items()} for split, videos in captions.items()}


# ------------------------------------------------------------------------------------------- finding the files


def _read(place: Path, name: str | None) -> Captions:
    if place.is_file():
        published = next((form for form in _PUBLISHED.values() if place.name in form.files.values()), None)
        return published.read(place.parent) if published else _own(place)
    own = next((place / file for file in _OWN if (place / file).is_file()), None)
    if own is not None:
        return _own(own)
    for known, form in _PUBLISHED.items():
        if name in (None, known) and any((place / file).is_file() for file in form.files.values()):
            return form.read(place)
    return _viclip(place)


def _viclip(folder: Path) -> Captions:
    """Read ViCLIP's lists: JSON files that are named after their splits."""
    found: Captions = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix == ".json"):
        for split, videos in _own(path).items():
            if split in found:
                raise UserError(f"{path}: another file in {folder} has captions of the split '{split}' too; keep one")
            found[split] = videos
    if not found:
        wanted = [*_OWN, *(next(iter(form.files.values())) for form in _PUBLISHED.values())]
        raise UserError(f"{folder}: no captions in this folder; it should hold {', '.join(wanted)} or ViCLIP's JSON")
    return found


# --------------------------------------------------------------------------------------------- published forms


def _msrvtt(folder: Path) -> Captions:
    found: dict[str, dict[str, list[str]]] = {}
    captions: dict[str, list[str]] = {}
    data = folder / _MSRVTT["test_full"]
    if data.is_file():
        content = _json(data)
        if not isinstance(content, dict) or not {"videos", "sentences"} <= content.keys():
            raise UserError(f'{data}: expected {{"videos": [...], "sentences": [...]}}')
        for where, item in _entries(data, content["sentences"], "sentence"):
            captions.setdefault(_field(item, "video_id", where), []).append(_field(item, "caption", where))
        videos = [(item.get("split"), _field(item, "video_id", w)) for w, item in _entries(data, content["videos"])]
        tested = [video for split, video in videos if split == "test"]
        found["test_full"] = {video: _captions_of(video, captions, str(data)) for video in tested}
    for split in ("train", "train_7k"):
        for where, row in _table(folder / _MSRVTT[split], ("video_id",)):
            if not captions:
                raise UserError(f"{data} is not there: it has the captions of {folder / _MSRVTT[split]}")
            found.setdefault(split, {})[row["video_id"]] = _captions_of(row["video_id"], captions, where)
    for where, row in _table(folder / _MSRVTT["test"], ("video_id", "sentence")):
        found.setdefault("test", {}).setdefault(row["video_id"], []).append(_field(row, "sentence", where))
    return {split: _frozen(found[split]) for split in _MSRVTT if found.get(split)}


def _msvd(folder: Path) -> Captions:
    captions = _msvd_captions(folder)
    return {
        split: _frozen({video: _captions_of(video, captions, where) for where, video in _lines(folder / file)})
        for split, file in _LISTS.items()
        if (folder / file).is_file()
    }


def _msvd_captions(folder: Path) -> dict[str, list[str]]:
    """Return the captions of all videos, from whichever of the published files is there."""
    found: dict[str, list[str]] = {}
    if (path := folder / "raw-captions.json").is_file():
        for video, captions in _videos(path, _json(path), path.name).items():
            found[video] = list(captions)
    elif (path := folder / "AllVideoDescriptions.txt").is_file():
        for where, line in _lines(path):
            if not line.startswith("#"):
                video, _, caption = line.partition(" ")
                found.setdefault(video, []).append(_field({"description": caption}, "description", where))
    elif (path := folder / "video_corpus.csv").is_file():
        for _, row in _table(path, ("VideoID", "Start", "End", "Language", "Description")):
            if row["Language"] == "English" and row["Description"]:  # the published file has some that are empty
                found.setdefault(f"{row['VideoID']}_{row['Start']}_{row['End']}", []).append(row["Description"])
    elif (path := folder / "raw-captions.pkl").is_file():
        raise UserError(
            f"{path}: a pickle can run any code and is not opened here; if you trust it, convert it in its folder with "
            f"{_CONVERT}, or give AllVideoDescriptions.txt or video_corpus.csv instead"
        )
    else:
        raise UserError(f"{folder}: no captions of MSVD: raw-captions.json, AllVideoDescriptions.txt, video_corpus.csv")
    return found


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


@dataclass(frozen=True)
class _Published:
    """The published form of a data set: its file for each split, and their reader."""

    files: Mapping[str, str]
    read: Callable[[Path], Captions]


_PUBLISHED: Mapping[str, _Published] = {
    "msrvtt": _Published(_MSRVTT, _msrvtt),
    "msvd": _Published(_LISTS, _msvd),
    "lsmdc": _Published(_LSMDC, _lsmdc),
    "didemo": _Published(_DIDEMO, _didemo),
}


def _captions_of(video: str, captions: Mapping[str, list[str]], where: str) -> list[str]:
    if video not in captions:
        raise UserError(f"{where}: no captions of '{video}'{nearest(video, captions)}")
    return captions[video]


# --------------------------------------------------------------------------------------------------- own forms


def _own(path: Path) -> Captions:
    if path.suffix.lower() == ".csv":
        return _own_csv(path)
    if path.suffix.lower() != ".json":
        raise UserError(f"{path}: captions are a .json or a .csv file, or a folder of published files")
    content = _json(path)
    if isinstance(content, dict) and content and all(isinstance(texts, list) for texts in content.values()):
        return {UNSPLIT: _videos(path, content, path.name)}
    if isinstance(content, dict):
        return {split: _videos(path, videos, f"split '{split}'") for split, videos in content.items()}
    named = re.search("train|val|test", path.stem.lower())
    return {named[0] if named else UNSPLIT: _listed_videos(path, content)}


def _own_csv(path: Path) -> Captions:
    found: dict[str, dict[str, list[str]]] = {}
    rows = list(_table(path, ("video", "caption")))
    for (where, row), cut in zip(rows, _cuts(path, rows), strict=True):
        videos = found.setdefault(row.get("split") or UNSPLIT, {})
        videos.setdefault(cut.after(_field(row, "video", where)), []).append(_field(row, "caption", where))
    return {split: _frozen(videos) for split, videos in found.items()}


def _cuts(path: Path, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Cut]:
    """Return which part of its video each row captions, by its cells of times, if there are such columns.

    Raises:
        UserError: times that are wrong, or of an uncertain unit.
    """
    columns = time_columns(list(dict.fromkeys(name for _, row in rows for name in row)), str(path))
    if columns is None:
        return [WHOLE] * len(rows)
    texts = [
        ["" if row.get(name) is None else str(row[name]) for name in (columns.start, columns.end)] for _, row in rows
    ]
    cuts, _ = read_cuts(columns, [(start, end) for start, end in texts], None, str(path))
    for (where, _), cut in zip(rows, cuts, strict=True):
        if cut.problem:
            raise UserError(f"{where}: {cut.problem} ({cut.text})")
    return cuts


def _listed_videos(path: Path, content: Any) -> dict[str, tuple[str, ...]]:
    """Return the captions in ``[{"video": ..., "caption": ...}]``, where a caption is one string or a list of them."""
    videos: dict[str, list[str]] = {}
    entries = list(_entries(path, content))
    for (where, item), cut in zip(entries, _cuts(path, entries), strict=True):
        captions = item.get("caption")
        name = cut.after(_field(item, "video", where))
        for caption in captions if isinstance(captions, list) else [captions]:
            videos.setdefault(name, []).append(_field({"caption": caption}, "caption", where))
    return _frozen(videos)


def _videos(path: Path, content: Any, part: str) -> dict[str, tuple[str, ...]]:
    """Return the captions in ``{video: [caption, ...]}``, where a caption is a string or the list of its tokens."""
    if not isinstance(content, dict) or not all(isinstance(texts, list) and texts for texts in content.values()):
        raise UserError(f'{path}, {part}: expected {{"video": ["caption", ...], ...}} with a caption for each video')
    found = {}
    for video, captions in content.items():
        where = f"{path}, {part}, video '{video}'"
        texts = [" ".join(caption) if _is_tokens(caption) else caption for caption in captions]
        found[video] = tuple(_field({"caption": text}, "caption", where) for text in texts)
    return found


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
    """Yield the lines that are not blank, stripped, each after its place."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def _table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a CSV that has these columns, each after its place; none if there is no such file."""
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


def _entries(path: Path, content: Any, kind: str = "entry") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a list, each after its place."""
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a list of objects")
    for number, item in enumerate(content, start=1):
        where = f"{path}, {kind} {number}"
        if not isinstance(item, dict):
            raise UserError(f"{where}: expected an object, found {json.dumps(item)[:60]}")
        yield where, item


def _field(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name} is {'blank' if isinstance(value, str) else 'not a text'}")
    return value.strip()


def _frozen(videos: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {video: tuple(captions) for video, captions in videos.items()}
