"""A folder of split lists, and the label CSVs that their numbers refer to.

Such a folder is a published repository's root, one of its list folders, the lists that ``ingest`` keeps with the data,
or own lists in the same form (``labels.csv``, ``val1.txt``, ...).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.storage.files import file_sha256
from pipelines.videos.catalog import Dataset, dataset, dataset_of_folder, part_of
from pipelines.videos.list_entries import ListLine
from pipelines.videos.list_files import is_list, is_table, list_stem, read_labels, read_list
from pipelines.videos.time_columns import Times
from vlmodels.errors import UserError, nearest
from vlmodels.paths import is_file, is_folder

KEPT = "lists.json"
"""The file that ``ingest`` adds to the lists that it keeps (:class:`KeptIndex`)."""

SUFFIXES = (".txt", ".txt.gz", ".csv", ".csv.gz", ".json", ".json.gz")
HmdbNames = Literal["as_published", "corrected"]
_SWAPPED = (("kick ball", "kick"), ("sword exercise", "sword"))
"""Neighbours in HMDB-51's published label CSVs whose videos carry each other's name."""


@dataclass(frozen=True, slots=True)
class VideoList:
    """A list of videos, and the classes that its labels are numbers of."""

    name: str
    path: Path
    labels_path: Path
    classes: tuple[str, ...]
    lines: tuple[ListLine, ...]

    @property
    def files(self) -> dict[str, str]:
        """The SHA-256 of the list and of its label file, by file name."""
        return {path.name: file_sha256(path) for path in (self.path, self.labels_path)}


@dataclass(frozen=True)
class KeptIndex:
    """The content of ``lists.json``, where ``ingest`` keeps lists.

    Attributes:
        dataset: the published data set that the lists belong to; None for own lists.
        labels: the name of each list's label file.
        times: how the lists' columns of times were read, if the user said so.
    """

    dataset: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    times: Times | None = None

    @classmethod
    def read(cls, folder: Path) -> KeptIndex:
        """Read the index of a folder; an empty one if there is none.

        Raises:
            UserError: the file cannot be read.
        """
        try:
            plain = json.loads((folder / KEPT).read_text())
            return cls(plain.get("dataset") or None, plain.get("labels", {}), plain.get("times"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(
                f"{folder / KEPT}: not readable ({error}); remove it and name the lists with --lists"
            ) from error

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        times = {"times": self.times} if self.times else {}
        return json.dumps({"dataset": self.dataset, "labels": self.labels, **times}, indent=1).encode()


@dataclass(frozen=True)
class ListFolder:
    """The lists of a folder, by name.

    Attributes:
        place: the folder.
        dataset: the published data set that the lists belong to, if any.
        labels: label CSVs by part ("", base, novel), where the user names them.
        hmdb_names: whether HMDB-51's four swapped class names stay as published or are corrected.
    """

    place: Path
    dataset: Dataset | None = None
    labels: Mapping[str, str] | None = None
    hmdb_names: HmdbNames = "as_published"

    @classmethod
    def open(
        cls,
        place: str | Path,
        name: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        hmdb_names: HmdbNames = "as_published",
    ) -> ListFolder:
        """Open ``place``; ``name`` is the data set's, unless the folder shows it.

        Raises:
            UserError: no such folder, or an unknown data set.
        """
        place = Path(place)
        if not is_folder(place):
            raise UserError(f"{place}: no such folder of lists")
        name = name or KeptIndex.read(place).dataset
        known = dataset(name) if name else dataset_of_folder(place.resolve().name)
        given = {part: path for part, path in (labels or {}).items() if path is not None}
        return cls(place, known, given, hmdb_names)

    def has(self, stem: str) -> bool:
        """Return whether there is a list called ``stem``."""
        return self._find(stem) is not None

    def names(self) -> list[str]:
        """Return the names of the lists that are here, in the data set's order if that is known."""
        found = dict.fromkeys(self.dataset.counts if self.dataset else ())
        found |= dict.fromkeys(KeptIndex.read(self.place).labels)
        folders = [folder for folder in self._folders() if folder.is_dir()]
        for folder in folders[1:] or folders:  # a repository's root holds other text files
            files = (path for path in folder.iterdir() if path.name.endswith(SUFFIXES))
            found |= dict.fromkeys(sorted(list_stem(path) for path in files if not is_table(path) or is_list(path)))
        return [name for name in found if self.has(name)]

    def is_list(self, stem: str) -> bool:
        """Return whether the file called ``stem`` is published or kept as a list, or looks like one."""
        if stem in (self.dataset.counts if self.dataset else ()) or stem in KeptIndex.read(self.place).labels:
            return True
        path = self._find(stem)
        return path is not None and is_list(path)

    def times(self, given: Times | None = None) -> Times | None:
        """Return how columns of times are read: as given, else as those of kept lists were."""
        return given or KeptIndex.read(self.place).times

    def read(self, stem: str, times: Times | None = None) -> VideoList:
        """Return the list ``stem`` with its classes; ``times`` says how to read columns of times.

        Raises:
            UserError: no such list or no label file for it; a line or label that is wrong (file and line).
        """
        path = self._find(stem)
        if path is None:
            there = self.names()
            raise UserError(
                f"no list {stem}.txt in {self.place}{nearest(stem, there)}; "
                + (f"lists there: {', '.join(there)}" if there else "the folder has no lists (protocol.lists)")
            )
        labels_path = self._labels_of(stem)
        classes = self._corrected(read_labels(labels_path))
        lines = read_list(path, classes=classes, times=self.times(times))
        return VideoList(stem, path, labels_path, tuple(classes), tuple(lines))

    def _find(self, stem: str) -> Path | None:
        return next(
            (
                path
                for folder in self._folders()
                for suffix in SUFFIXES
                if (path := folder / f"{stem}{suffix}").is_file()
            ),
            None,
        )

    def _folders(self) -> Iterator[Path]:
        yield self.place
        if self.dataset is not None:
            for root in (self.place, self.place / "splits", self.place / "datasets_splits"):
                yield root / self.dataset.folder
                yield root / "base2novel_splits" / self.dataset.folder

    def _labels_of(self, stem: str) -> Path:
        part = part_of(stem)
        if self.labels and part in self.labels:
            path = Path(self.labels[part])
            if not is_file(path):
                raise UserError(f"no label file {path}; it was named for the list {stem}")
            return path
        names = self._label_names(stem, part)
        near = (self.place, *self.place.resolve().parents[:3])
        for folder in (self.place, *(parent / "labels" for parent in near)):
            for name in names:
                if (folder / name).is_file():
                    return folder / name
        key = f"protocol.{part}_labels" if part in ("base", "novel") else "protocol.labels"
        raise UserError(
            f"no label file {' or '.join(dict.fromkeys(names))} for the list {stem} in {self.place} "
            f"(or in a folder 'labels' next to it or above it); pass --set {key}=CSV"
        )

    def _label_names(self, stem: str, part: str) -> list[str]:
        """Return the names that the label file of a list may have: as kept, as published, as own ones."""
        names = []
        if kept := KeptIndex.read(self.place).labels.get(stem):
            names.append(kept)
        if self.dataset:
            names.append(self.dataset.labels_of(stem))
        return [*names, f"{part}_labels.csv" if part else "labels.csv"]

    def _corrected(self, names: Sequence[str]) -> list[str]:
        """Return class names with HMDB-51's swapped ones exchanged, if the user wants that."""
        names = list(names)
        if self.hmdb_names == "corrected":
            for first, second in _SWAPPED:
                if first in names and second in names:
                    i, j = names.index(first), names.index(second)
                    names[i], names[j] = second, first
        return names

    def name_caveats(self, classes: Iterable[str]) -> list[str]:
        """Return caveats of the class names: four of HMDB-51's are swapped in the published files."""
        known = set(classes)
        pairs = [f"'{first}' and '{second}'" for first, second in _SWAPPED if {first, second} <= known]
        if self.dataset is None or self.dataset.name != "hmdb51" or not pairs:
            return []
        if self.hmdb_names == "corrected":
            return [f"HMDB-51's names {' and '.join(pairs)}, swapped as published, are corrected"]
        return [
            f"HMDB-51's names {' and '.join(pairs)} are swapped, as published: videos of one carry the other's name "
            "(protocol.hmdb_names=corrected corrects them)"
        ]


def kept_dataset(place: Path) -> str:
    """Return the name of the data set whose lists ``ingest`` kept in ``place``; "" if there are none, or own ones."""
    return KeptIndex.read(place).dataset or ""
