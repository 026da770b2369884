"""Which published files describe the classes of a label CSV, and which CSV their indexes refer to.

A folder is searched by what the file names say: data set and part must stand in the CSV's name (or its
folder's), the part may fall back to the full data set. Nothing is guessed from class counts alone: HMDB-51
and the base part of UCF-101 both have 51. If no one answer remains, the user has to name the files.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from llm_descriptions.errors import DescriptionError
from llm_descriptions.labels import match_names, read_labels
from llm_descriptions.published import Published, PublishedFile, count_classes, parse_path, read_published

if TYPE_CHECKING:
    from collections.abc import Sequence

TOY = Path(__file__).parent / "toy"

# Names of a data set in the published label CSVs, where they differ from those of the description files.
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
) -> list[Published]:
    """Read the published descriptions of the classes of ``labels_csv``.

    ``given``: files (all are read, whatever ``kinds`` and ``n``), or one folder, or the name of a toy world
    whose descriptions come with this package (``toy-ucf``). ``index_labels``: the CSV that the files' indexes
    refer to, or several whose sorted union they refer to; default: ``labels_csv`` itself if it has as many
    classes, else the one CSV beside it that has, and holds all names of ``labels_csv``. Raises
    ``DescriptionError`` where the files or the CSV are not unmistakable.
    """
    labels_csv = Path(labels_csv)
    labels = read_labels(labels_csv)
    paths = [Path(item) for item in given]
    if all(path.is_file() for path in paths):
        files = [_parse(path) for path in paths]
    elif len(paths) == 1:
        files = _choose(*_candidates(paths[0], labels_csv), kinds=kinds, n=n, where=paths[0], csv=labels_csv)
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


def _candidates(place: Path, labels_csv: Path) -> tuple[list[PublishedFile], list[PublishedFile]]:
    """Return all files of a folder or toy world, and those whose data set is the CSV's."""
    if place.is_dir():
        parsed = (parse_path(path) for path in sorted(place.rglob("*.json")))
        files = [file for file in parsed if file is not None]
        return files, _of_same_data(files, labels_csv)
    toys = [_parse(path) for path in sorted(TOY.glob("*_description_*.json"))]
    same = [file for file in toys if _letters(file.data) == _letters(str(place))]
    if not same:
        names = ", ".join(sorted({file.data.replace("_", "-") for file in toys})) or "none"
        raise DescriptionError(f"'{place}' is no file, folder or toy world with ready descriptions ({names})")
    return toys, same


def _of_same_data(files: Sequence[PublishedFile], labels_csv: Path) -> list[PublishedFile]:
    for text in (_letters(labels_csv.stem), _letters(labels_csv.absolute().parent.name)):
        lengths = {file: _longest_match(file.data, text) for file in files}
        longest = max(lengths.values(), default=0)
        if longest:
            # 'toy_ucf' also contains 'ucf'; within one data set, names of different length are aliases.
            best = {_letters(file.data) for file, length in lengths.items() if length == longest}
            return [
                file
                for file, length in lengths.items()
                if length and any(_longest_match(file.data, data) for data in best)
            ]
    return []


def _longest_match(data: str, text: str) -> int:
    names = (_letters(data), *_ALIASES.get(_letters(data), ()))
    return max((len(name) for name in names if name in text), default=0)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _choose(
    there: Sequence[PublishedFile],
    same: Sequence[PublishedFile],
    *,
    kinds: Sequence[str],
    n: int,
    where: Path,
    csv: Path,
) -> list[PublishedFile]:
    """Return one file a kind: of the CSV's part (base, novel, split1...), else of the full data set."""
    part = match[1] if (match := _PART.search(csv.stem.lower().replace("-", "_"))) else ""
    usable = [file for file in same if file.part in {part, ""}]
    if not usable:
        names = ", ".join(sorted({file.family for file in there})) or "none"
        raise DescriptionError(
            f"no description files in {where} carry the data set of {csv} in their names (there: {names}); "
            "give the right files themselves: --from-published FILE..."
        )
    chosen = []
    for kind in kinds:
        found = [file for file in usable if file.kind == kind and file.n == n]
        found = [file for file in found if file.part == part] or found
        if not found:
            counts = ", ".join(str(count) for count in sorted({f.n for f in usable if f.kind == kind}))
            raise DescriptionError(
                f"{where} has no {kind} descriptions of {csv} with n={n} (there: n={counts or 'none'})"
            )
        if len(found) > 1:
            names = ", ".join(str(file.path) for file in found)
            raise DescriptionError(
                f"several {kind} files with n={n} fit {csv}: {names}; give the right ones themselves: "
                "--from-published FILE..."
            )
        chosen.append(found[0])
    return chosen


def _index_names(
    file: PublishedFile, labels_csv: Path, labels: Sequence[str], index_labels: Sequence[str | Path]
) -> Sequence[str]:
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
    several = f"; several beside it would fit: {', '.join(map(str, found.values()))}" if found else ""
    raise DescriptionError(
        f"{file.path} has {count} classes, {labels_csv} {len(labels)}{several}: give the CSV that the file's "
        "indexes refer to with --index-labels, or the description file of this very list"
    )
