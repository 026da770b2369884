"""Published description files: {"class index": [texts]}, as ETL4Video and OST ship them; read and written.

ETL4Video: ``2_s_description_hmdb_base.json`` (N, spatial or temporal, data set, part). OST: short phrases, in
``hmdb/spatio_descriptors/4_descriptors.json`` and ``k600/split1/temporal_2_descriptors.json``.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llm_descriptions.errors import DescriptionError
from llm_descriptions.labels import match_names
from llm_descriptions.prompts import unframed
from llm_descriptions.store import Key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PROMPT_ID = "published"
STYLES = ("etl4video", "ost")

_KIND_WORDS = {"s": "spatial", "spatio": "spatial", "t": "temporal", "temporal": "temporal"}
_ETL = re.compile(r"(?P<n>\d+)_(?P<kind>[st])_description_(?P<data>.+?)(?:_(?P<part>base|novel))?\.json")
_OST = re.compile(
    r"(?P<data>[^/]+)/(?P<kind>spatio|temporal)_descriptors/(?P<n>\d+)_descriptors\.json"
    r"|(?P<data2>[^/]+)/(?P<part>split\d)/(?P<kind2>spatio|temporal)_(?P<n2>\d+)_descriptors\.json"
)
_TEMPLATE = re.compile(r"a videos? of (?P<cls>.+?) generally involves the following step", re.IGNORECASE)
# The label CSV lists each pair in this order; the video lists, and with them OST's files, the other way round.
_HMDB_PAIRS = (("kick ball", "kick"), ("sword exercise", "sword"))
# Of published temporal sentences practically all name their class; of shifted ones less than half do.
_NAMED_SHARE = 0.9


@dataclass(frozen=True, slots=True, order=True)
class PublishedFile:
    """One file and what its name says: N texts of one kind; ``part`` is base, novel, split1... or empty."""

    path: Path
    style: str
    data: str
    part: str
    kind: str
    n: int

    @property
    def family(self) -> str:
        """Name the files that belong together, whatever their N and kind."""
        return f"{self.style} {self.data}{f' {self.part}' if self.part else ''}"


@dataclass(frozen=True, slots=True)
class Published:
    """The texts of one file by class name, and what about the file a user should know."""

    file: PublishedFile
    texts: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    def entries(self) -> dict[Key, tuple[str, ...]]:
        """Return the texts under the store's keys: the collection and data set (``etl4video/hmdb``) as model."""
        file = self.file
        return {
            Key(label, file.kind, PROMPT_ID, f"{file.style}/{file.data}", file.n): texts
            for label, texts in self.texts.items()
        }


def parse_path(path: str | Path) -> PublishedFile | None:
    """Return what the name of a published file says, or None for any other name."""
    path = Path(path)
    if etl := _ETL.fullmatch(path.name):
        style = "toy" if etl["data"].startswith("toy_") else "etl4video"
        return PublishedFile(path, style, etl["data"], etl["part"] or "", _KIND_WORDS[etl["kind"]], int(etl["n"]))
    if ost := _OST.fullmatch("/".join(path.absolute().parts[-3:])):
        data, kind, n = (ost[name] or ost[f"{name}2"] for name in ("data", "kind", "n"))
        return PublishedFile(path, "ost", data, ost["part"] or "", _KIND_WORDS[kind], int(n))
    return None


def read_published(file: PublishedFile, index_names: Sequence[str], labels: Sequence[str] | None = None) -> Published:
    """Return the texts of ``labels`` (default: all) from a file whose indexes refer to ``index_names``.

    Labels are found by class *name*, so that a base, novel or zero-shot list takes its texts from the file of
    the full data set. Texts stay as published; a class with other than N texts, or with one twice, gets a
    note. Raises ``DescriptionError`` for a file that is not of this shape, for missing and surplus classes
    (all named), and for texts that are evidently about other classes.
    """
    by_index = _load(file.path)
    _check_indexes(file.path, by_index, index_names)
    names = _hmdb_order(index_names, file.style) if file.data.startswith("hmdb") else list(index_names)
    by_name = {name: by_index[str(index)] for index, name in enumerate(names)}
    matches = match_names(labels if labels is not None else index_names, names)
    unknown = [label for label, name in matches.items() if name is None]
    if unknown:
        raise DescriptionError(f"{file.path} has no descriptions for {len(unknown)} classes: {_list(unknown)}")
    texts = {label: by_name[name] for label, name in matches.items() if name is not None}
    if file.kind == "temporal":
        _check_names(file.path, texts)
    notes = _notes(file, texts)
    if names != list(index_names):
        notes += (f"{file.path}: 'kick'/'kick ball' and 'sword'/'sword exercise' put under their right names",)
    return Published(file, texts, notes)


def count_classes(path: Path) -> int:
    """Return the number of classes in a published file."""
    return len(_load(path))


def export_published(
    folder: str | Path,
    data: str,
    texts: Mapping[str, Sequence[str]],
    names: Sequence[str],
    *,
    kind: str,
    n: int,
    style: str = "etl4video",
) -> Path:
    """Write ``{index in names: texts}`` under ``folder`` as one of ``STYLES`` does, and return the file.

    ``etl4video``: sentences as they are. ``ost``: the phrases without the frame of the published sentences. The
    indexes of HMDB's two swapped pairs are those of the style's own files, so that reading finds the same texts.
    Raises if a name has no texts, or ``data`` cannot stand in a file's name.
    """
    if not re.fullmatch(r"[\w-]+", data):
        raise DescriptionError(f"'{data}' cannot name a data set: use letters, digits, '_' and '-' only")
    if style == "ost":
        path = Path(folder) / data / f"{'spatio' if kind == 'spatial' else kind}_descriptors" / f"{n}_descriptors.json"
    else:
        path = Path(folder) / f"{n}_{kind[0]}_description_{data}.json"
    missing = [name for name in names if not texts.get(name)]
    if missing:
        raise DescriptionError(f"cannot write {path}: no descriptions of {_list(missing)}")
    order = _hmdb_order(names, style) if data.startswith("hmdb") else names
    content = {str(index): list(texts[name]) for index, name in enumerate(order)}
    if style == "ost":
        content = {index: [unframed(text) or text for text in found] for index, found in content.items()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DescriptionError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _load(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DescriptionError(f"cannot read the descriptions {path}: {error}") from error
    if not isinstance(content, dict):
        raise DescriptionError(f"{path} must be a JSON object {{class index: [texts]}}, got a {type(content).__name__}")
    bad = [
        index
        for index, texts in content.items()
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts)
    ]
    if bad:
        raise DescriptionError(f"{path}: these classes lack a list of non-empty texts: {_list(bad)}")
    return {index: tuple(text.strip() for text in texts) for index, texts in content.items()}


def _check_indexes(path: Path, by_index: Mapping[str, object], names: Sequence[str]) -> None:
    missing = [f"{i} '{name}'" for i, name in enumerate(names) if str(i) not in by_index]
    known = {str(i) for i in range(len(names))}
    surplus = [index for index in by_index if index not in known]
    if missing or surplus:
        lacks = f"; {len(missing)} missing: {_list(missing)}" if missing else ""
        extra = f"; {len(surplus)} surplus: {_list(surplus)}" if surplus else ""
        raise DescriptionError(
            f"{path} has {len(by_index)} classes, the class list {len(names)}{lacks}{extra}. "
            "Is it the file of another list? --index-labels names the CSV that its indexes refer to"
        )


def _hmdb_order(index_names: Sequence[str], style: str) -> list[str]:
    """Return the names as the indexes of an HMDB file of this style mean them, whichever CSV is given."""
    names = list(index_names)
    for first, second in _HMDB_PAIRS:
        if first in names and second in names:
            low, high = sorted((names.index(first), names.index(second)))
            names[low], names[high] = (second, first) if style == "ost" else (first, second)
    return names


def _check_names(path: Path, texts: Mapping[str, Sequence[str]]) -> None:
    """Raise if sentences of the published template name other actions than the classes they stand for."""
    subjects = {
        label: [match["cls"] for match in map(_TEMPLATE.match, sentences) if match]
        for label, sentences in texts.items()
    }
    occurrences = Counter(stem for label in subjects for stem in _stems(label))
    telling = {stem for stem, count in occurrences.items() if count <= max(1, len(subjects) / 2)}
    judged = {label: found for label, found in subjects.items() if found and _stems(label) & telling}
    strange = [
        f"'{label}' ('{found[0]}')"
        for label, found in judged.items()
        if not any(stem in " ".join(found).lower() for stem in _stems(label) & telling)
    ]
    if len(strange) > (1 - _NAMED_SHARE) * len(judged):
        raise DescriptionError(
            f"{path} seems to describe other classes: {len(strange)} of {len(judged)} texts name another "
            f"action: {_list(strange[:5])}... Is it the file of another list, or are the classes in another "
            "order? --index-labels names the CSV that its indexes refer to"
        )


def _stems(label: str) -> set[str]:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).lower()
    return {word[:4] for word in re.findall(r"[a-z]{3,}", words)}


def _notes(file: PublishedFile, texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    notes = []
    counts = Counter({label: len(found) for label, found in texts.items() if len(found) != file.n})
    if counts:
        uneven = _list(f"'{label}' has {count}" for label, count in counts.items())
        notes.append(f"{file.path}: not {file.n} texts for every class: {uneven}")
    twice = [f"'{label}'" for label, found in texts.items() if len(set(found)) != len(found)]
    if twice:
        notes.append(f"{file.path}: the same text more than once for {_list(twice)}")
    return tuple(notes)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
