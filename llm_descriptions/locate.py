"""Search for the published files that describe the classes of a label CSV, and for the CSV that their indexes refer to.

The names of the files decide: a file's data set must occur in the CSV's name (or its folder's); its part must be the
CSV's, or else the full data set is used. The number of classes alone decides nothing: HMDB-51 and the base part of
UCF-101 both have 51. If not exactly one file remains, the user has to name the files.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llm_descriptions.errors import DescriptionError
from llm_descriptions.labels import match_names, read_labels
from llm_descriptions.published_files import Published, PublishedFile, count_classes, parse_path, read_published

if TYPE_CHECKING:
    from collections.abc import Sequence

TOY_FOLDER = Path(__file__).parent / "toy"
"""Descriptions of the toy worlds' classes, which this package includes."""

# Names of a data set in the published label CSVs that differ from its name in the description files.
_ALIASES = {
    "k400": ("kinetics400",),
    "k600": ("kinetics600",),
    "sth": ("ssv2", "somethingsomething"),
    "ssv2": ("somethingsomething",),
    "ucf101": ("ucf",),
}
_PART = re.compile(r"(?:^|_)(base|novel|split\d)(?=_|$)")


def find_published(
    labels_csv: str | Path,
    given: Sequence[str | Path],
    *,
    kinds: Sequence[str],
    n: int,
    index_labels: Sequence[str | Path] = (),
    toy_folder: Path = TOY_FOLDER,
) -> list[Published]:
    """Read the published descriptions of the classes of ``labels_csv``.

    Args:
        labels_csv: the class list.
        given: files, which are all read; or one folder; or the name of a toy world (``toy-ucf``).
        kinds: kinds to find in a folder or toy world.
        n: texts per class of the files to find in a folder or toy world.
        index_labels: the CSV that the files' indexes refer to, or several whose sorted union they refer to. Default:
            ``labels_csv`` if it has as many classes as the file, else the only CSV in its folder that has as many and
            includes all names of ``labels_csv``.
        toy_folder: the toy worlds' files.

    Raises:
        DescriptionError: no files, or no CSV, fit, or several do.
    """
    labels_csv = Path(labels_csv)
    labels = read_labels(labels_csv)
    paths = [Path(item) for item in given]
    if all(path.is_file() for path in paths):
        files = [_parse(path) for path in paths]
    elif len(paths) == 1:
        candidates = _candidates(paths[0], labels_csv, toy_folder)
        files = _choose(candidates, kinds=kinds, n=n, where=paths[0], csv=labels_csv)
    else:
        absent = ", ".join(str(path) for path in paths if not path.is_file())
        raise DescriptionError(f"--from-published takes files, or one folder or name; no such file: {absent}")
    return [read_published(file, _index_names(file, labels_csv, labels, index_labels), labels) for file in files]


def _parse(path: Path) -> PublishedFile:
    file = parse_path(path)
    if file is None:
        raise DescriptionError(
            f"{path}: the name of a description file must say its N, kind and data set, as in "
            "'2_s_description_hmdb.json' (s: spatial, t: temporal) or 'hmdb/spatio_descriptors/4_descriptors.json'"
        )
    return file


@dataclass(frozen=True, slots=True)
class _Candidates:
    """All files of a folder or of the toy worlds, and those of the CSV's data set."""

    all_files: Sequence[PublishedFile]
    same_data: Sequence[PublishedFile]


def _candidates(place: Path, labels_csv: Path, toy_folder: Path) -> _Candidates:
    """Find the files of a folder, or of the toy world with this name."""
    if place.is_dir():
        parsed = (parse_path(path) for path in sorted(place.rglob("*.json")))
        files = [file for file in parsed if file is not None]
        return _Candidates(files, _of_same_data(files, labels_csv))
    toys = [_parse(path) for path in sorted(toy_folder.glob("*_description_*.json"))]
    same = [file for file in toys if _letters(file.data) == _letters(str(place))]
    if not same:
        names = ", ".join(sorted({file.data.replace("_", "-") for file in toys})) or "none"
        raise DescriptionError(f"'{place}' is not a file, a folder or a toy world with descriptions ({names})")
    return _Candidates(toys, same)


def _of_same_data(files: Sequence[PublishedFile], labels_csv: Path) -> list[PublishedFile]:
    """Select the files whose data set has the longest match in the CSV's name, or else in its folder's."""
    for text in (_letters(labels_csv.stem), _letters(labels_csv.absolute().parent.name)):
        lengths = {file: _longest_match(file.data, text) for file in files}
        longest = max(lengths.values(), default=0)
        if longest:
            # Only the longest match counts: 'toy_ucf' also contains 'ucf'. Other names of its data set are aliases.
            best = {_letters(file.data) for file, length in lengths.items() if length == longest}
            return [
                file
                for file, length in lengths.items()
                if length and any(_longest_match(file.data, data) for data in best)
            ]
    return []


def _longest_match(data: str, text: str) -> int:
    """Return the length of the longest name of a data set that occurs in ``text``, or 0."""
    names = (_letters(data), *_ALIASES.get(_letters(data), ()))
    return max((len(name) for name in names if name in text), default=0)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _choose(candidates: _Candidates, *, kinds: Sequence[str], n: int, where: Path, csv: Path) -> list[PublishedFile]:
    """Choose one file per kind: of the CSV's part (base, novel, split1...), or else of the full data set."""
    match = _PART.search(csv.stem.lower().replace("-", "_"))
    part = match[1] if match else ""
    usable = [file for file in candidates.same_data if file.part in {part, ""}]
    if not usable:
        names = ", ".join(sorted({file.family for file in candidates.all_files})) or "none"
        raise DescriptionError(
            f"no description file in {where} has the data set of {csv} in its name (there: {names}); "
            "name the right files: --from-published FILE..."
        )
    return [_choose_kind(usable, kind, n, part, where=where, csv=csv) for kind in kinds]


def _choose_kind(
    usable: Sequence[PublishedFile], kind: str, n: int, part: str, *, where: Path, csv: Path
) -> PublishedFile:
    of_kind = [file for file in usable if file.kind == kind]
    found = [file for file in of_kind if file.n == n]
    found = [file for file in found if file.part == part] or found
    if not found:
        counts = ", ".join(map(str, sorted({file.n for file in of_kind}))) or "none"
        raise DescriptionError(f"{where} has no {kind} descriptions of {csv} with n={n} (there: n={counts})")
    if len(found) > 1:
        names = ", ".join(str(file.path) for file in found)
        raise DescriptionError(
            f"several {kind} files with n={n} fit {csv}: {names}; name the right ones: --from-published FILE..."
        )
    return found[0]


def _index_names(
    file: PublishedFile, labels_csv: Path, labels: Sequence[str], index_labels: Sequence[str | Path]
) -> Sequence[str]:
    """Find the class names that the file's indexes refer to (see ``find_published``)."""
    if index_labels:
        lists = [read_labels(path) for path in index_labels]
        return lists[0] if len(lists) == 1 else sorted({name for names in lists for name in names})
    count = count_classes(file.path)
    if count == len(labels):
        return labels
    found = {}
    for path in sorted(labels_csv.absolute().parent.glob("*.csv")):
        with contextlib.suppress(DescriptionError):
            names = read_labels(path)
            if len(names) == count and None not in match_names(labels, names).values():
                found[names] = path
    if len(found) == 1:
        return next(iter(found))
    several = f"; several CSV files in its folder fit: {', '.join(map(str, found.values()))}" if found else ""
    raise DescriptionError(
        f"{file.path} has {count} classes, {labels_csv} {len(labels)}{several}: give the CSV that the file's "
        "indexes refer to with --index-labels, or the description file of exactly this list"
    )
