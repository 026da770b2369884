"""Published description files, {"class index": [texts]}, as ETL4Video and OST distribute them.

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
# The label CSV lists each pair in this order; the video lists and OST's files list it in the other order.
_HMDB_PAIRS = (("kick ball", "kick"), ("sword exercise", "sword"))
# Almost all published temporal sentences name their class; if classes are shifted, fewer than half do.
_MIN_NAMED_SHARE = 0.9


@dataclass(frozen=True, slots=True, order=True)
class PublishedFile:
    """A file, and what its name says about its content.

    Attributes:
        style: the collection: etl4video, ost or toy.
        data: the data set.
        part: base, novel, split1, split2, split3, or empty.
        kind: spatial or temporal.
        n: texts per class.
    """

    path: Path
    style: str
    data: str
    part: str
    kind: str
    n: int

    @property
    def family(self) -> str:
        """Name all files of this collection, data set and part, of any N and kind."""
        return " ".join(filter(None, (self.style, self.data, self.part)))


@dataclass(frozen=True, slots=True)
class Published:
    """The texts of one file by class name, and notes about the file for the user."""

    file: PublishedFile
    texts: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    def entries(self) -> dict[Key, tuple[str, ...]]:
        """Return the texts by the store's keys; the model is the collection and data set (``etl4video/hmdb``)."""
        file = self.file
        return {
            Key(label, file.kind, PROMPT_ID, f"{file.style}/{file.data}", file.n): texts
            for label, texts in self.texts.items()
        }


def parse_path(path: str | Path) -> PublishedFile | None:
    """Parse the name of a published file; return None for other names."""
    path = Path(path)
    if etl := _ETL.fullmatch(path.name):
        style = "toy" if etl["data"].startswith("toy_") else "etl4video"
        return PublishedFile(path, style, etl["data"], etl["part"] or "", _KIND_WORDS[etl["kind"]], int(etl["n"]))
    if ost := _OST.fullmatch("/".join(path.absolute().parts[-3:])):
        data, kind, n = (ost[name] or ost[f"{name}2"] for name in ("data", "kind", "n"))
        return PublishedFile(path, "ost", data, ost["part"] or "", _KIND_WORDS[kind], int(n))
    return None


def read_published(file: PublishedFile, index_names: Sequence[str], labels: Sequence[str] | None = None) -> Published:
    """Read the texts of ``labels`` from a published file.

    Labels are matched by class *name*, so a base, novel or zero-shot list can use the file of the full data set. Texts
    stay unchanged; notes mention classes with another number of texts than N or with a repeated text.

    Args:
        file: the file.
        index_names: the class names that the file's indexes refer to, in order.
        labels: the classes to read; default: all.

    Raises:
        DescriptionError: the file has another form, classes are missing or surplus (the message names them all), or
            the texts clearly describe other classes.
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
        _check_subjects(file.path, texts)
    notes = _notes(file, texts)
    if names != list(index_names):
        notes += (f"{file.path}: 'kick'/'kick ball' and 'sword'/'sword exercise' are assigned to their right names",)
    return Published(file, texts, notes)


def count_classes(path: Path) -> int:
    """Count the classes in a published file."""
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
    """Write texts under ``folder`` in a published form, and return the file.

    The indexes of HMDB's two swapped pairs are those of the style's own files, so reading the file returns the same
    texts.

    Args:
        folder: the folder to write to.
        data: the data set, for the file's name.
        texts: texts by class name.
        names: the class names that the file's indexes refer to, in order.
        kind: spatial or temporal.
        n: texts per class, for the file's name.
        style: one of ``STYLES``. etl4video writes the sentences; ost writes their phrases, without the frame.

    Raises:
        DescriptionError: a name has no texts, ``data`` is not valid in a file's name, or the file cannot be written.
    """
    if not re.fullmatch(r"[\w-]+", data):
        raise DescriptionError(f"'{data}' is not valid as a data set's name: use letters, digits, '_' and '-' only")
    if style == "ost":
        kind_word = "spatio" if kind == "spatial" else kind
        path = Path(folder) / data / f"{kind_word}_descriptors" / f"{n}_descriptors.json"
    else:
        path = Path(folder) / f"{n}_{kind[0]}_description_{data}.json"
    missing = [name for name in names if not texts.get(name)]
    if missing:
        raise DescriptionError(f"cannot write {path}: no descriptions of {_list(missing)}")
    order = _hmdb_order(names, style) if data.startswith("hmdb") else names
    content = {str(index): list(texts[name]) for index, name in enumerate(order)}
    if style == "ost":
        content = {index: [unframed(text) or text for text in found] for index, found in content.items()}
    _write(path, content)
    return path


def _write(path: Path, content: Mapping[str, Sequence[str]]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DescriptionError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


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
    """Return the names in the order of the indexes of an HMDB file of this style, for either order in the CSV."""
    names = list(index_names)
    for first, second in _HMDB_PAIRS:
        if first in names and second in names:
            low, high = sorted((names.index(first), names.index(second)))
            names[low], names[high] = (second, first) if style == "ost" else (first, second)
    return names


def _check_subjects(path: Path, texts: Mapping[str, Sequence[str]]) -> None:
    """Raise ``DescriptionError`` if sentences of the published template name other actions than their classes."""
    subjects = {
        label: [match["cls"] for match in map(_TEMPLATE.match, sentences) if match]
        for label, sentences in texts.items()
    }
    occurrences = Counter(stem for label in subjects for stem in _stems(label))
    distinctive = {stem for stem, count in occurrences.items() if count <= max(1, len(subjects) / 2)}
    checked = {label: found for label, found in subjects.items() if found and _stems(label) & distinctive}
    mismatched = [
        f"'{label}' ('{found[0]}')"
        for label, found in checked.items()
        if not any(stem in " ".join(found).lower() for stem in _stems(label) & distinctive)
    ]
    if len(mismatched) > (1 - _MIN_NAMED_SHARE) * len(checked):
        raise DescriptionError(
            f"{path} seems to describe other classes: {len(mismatched)} of {len(checked)} texts name another "
            f"action: {_list(mismatched[:5])}... Is it the file of another list, or are the classes in another "
            "order? --index-labels names the CSV that its indexes refer to"
        )


def _stems(label: str) -> set[str]:
    """Return the first four letters of each word, which inflected forms of the word share."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).lower()
    return {word[:4] for word in re.findall(r"[a-z]{3,}", words)}


def _notes(file: PublishedFile, texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    notes = []
    other_counts = [f"'{label}' has {len(found)}" for label, found in texts.items() if len(found) != file.n]
    if other_counts:
        notes.append(f"{file.path}: not {file.n} texts for every class: {_list(other_counts)}")
    repeated = [f"'{label}'" for label, found in texts.items() if len(set(found)) != len(found)]
    if repeated:
        notes.append(f"{file.path}: the same text more than once for {_list(repeated)}")
    return tuple(notes)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
