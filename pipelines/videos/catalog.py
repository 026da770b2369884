"""Published data sets: the names of their files, and the numbers of videos and classes of their lists.

File names are those of ViFi-CLIP and X-CLIP; counts are of these files. Of the four papers, MSTA uses these lists by
its logs, and ViLT-CLIP those of base-to-novel by its text. ViLT-CLIP and OmniCLIP say that they draw their shots at
random, and M2-CLIP names no lists: that theirs are these is our assumption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vlmodels.errors import UserError, nearest

SHOTS = (2, 4, 8, 16)
DRAWS = (1, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A published data set for classification.

    Attributes:
        name: as users write it.
        title: as the papers' tables print it.
        labels: label CSV of the whole set.
        part_labels: label CSVs of its parts (base, novel, split1...).
        folder: folder of its lists; those of base-to-novel are in a folder of the same name below
            ``base2novel_splits``.
        tests: lists that zero-shot evaluation averages over; the first is few-shot's and supervised training's test.
        train: list of supervised training.
        classes: number of classes.
        part_classes: number of classes of each part.
        counts: number of videos of each list.
    """

    name: str
    title: str
    labels: str
    part_labels: Mapping[str, str]
    folder: str
    tests: tuple[str, ...]
    train: str
    classes: int
    part_classes: Mapping[str, int]
    counts: Mapping[str, int] = field(default_factory=dict)

    def labels_of(self, stem: str) -> str:
        """Return the name of the label CSV of the list ``stem``."""
        return self.part_labels.get(part_of(stem), self.labels)


def part_of(stem: str) -> str:
    """Return the part whose classes a list's labels number, by its name: base, novel, split1..., "" for all."""
    if stem.startswith(("fs_base_", "base_")):
        return "base"
    if stem.startswith("novel_"):
        return "novel"
    if stem.startswith("ZS_split"):
        return f"split{stem.removeprefix('ZS_split')[:1]}"
    return ""


def _few_shot(classes: int) -> dict[str, int]:
    return {f"train1_few_shot_{k}": k * classes for k in SHOTS}


def _base_to_novel(base_classes: int, base_val: int, novel_val: int, base_train: int | None) -> dict[str, int]:
    counts = {f"fs_base_s{draw}_train": 16 * base_classes for draw in DRAWS}
    counts |= {"base_val": base_val, "novel_val": novel_val}
    return counts | ({"base_train": base_train} if base_train else {})


def _parts(prefix: str) -> dict[str, str]:
    return {part: f"{prefix}_{part}_labels.csv" for part in ("base", "novel")}


_THREE = ("val1", "val2", "val3")
DATASETS: Mapping[str, Dataset] = {
    d.name: d
    for d in (
        Dataset(
            name="hmdb51",
            title="HMDB51",
            labels="hmdb_51_labels.csv",
            part_labels=_parts("hmdb_51"),
            folder="hmdb_splits",
            tests=_THREE,
            train="train1",
            classes=51,
            part_classes={"base": 26, "novel": 25},
            counts=dict.fromkeys(_THREE, 1530) | _few_shot(51) | _base_to_novel(26, 780, 750, 1820),
        ),
        Dataset(
            name="ucf101",
            title="UCF101",
            labels="ucf_101_labels.csv",
            part_labels=_parts("ucf_101"),
            folder="ucf_splits",
            tests=_THREE,
            train="train1",
            classes=101,
            part_classes={"base": 51, "novel": 50},
            counts={"val1": 3783, "val2": 3734, "val3": 3696} | _few_shot(101) | _base_to_novel(51, 2088, 1695, 5385),
        ),
        Dataset(
            name="ssv2",
            title="SSv2",
            labels="ssv2_labels.csv",
            part_labels=_parts("ssv2_174"),
            folder="ssv2_splits",
            tests=("validation",),
            train="train",
            classes=174,
            part_classes={"base": 87, "novel": 87},
            counts={"validation": 24_777} | _few_shot(174) | _base_to_novel(87, 17_562, 7_215, 125_937),
        ),
        Dataset(
            name="k400",
            title="K400",
            labels="kinetics_400_labels.csv",
            part_labels=_parts("kinetics_400"),
            folder="k400_splits",
            tests=("val",),
            train="train",
            classes=400,
            part_classes={"base": 200, "novel": 200},
            counts={"val": 19_877, "train_tiny": 60_000} | _base_to_novel(200, 9_944, 9_933, None),
        ),
        Dataset(
            name="k600",
            title="K600",
            labels="kinetics_600_labels.csv",
            part_labels={f"split{i}": f"ZS_split{i}_K600.csv" for i in DRAWS},
            folder="k600_splits",
            tests=tuple(f"ZS_split{i}_K600_eval" for i in DRAWS),
            train="train",
            classes=600,
            part_classes={f"split{i}": 160 for i in DRAWS},
            counts={
                f"ZS_split{i}_K600_eval{variant}": count
                for i, count in zip(DRAWS, (14_084, 13_978, 14_136), strict=True)
                for variant in ("", "_filtered_OST")
            },
        ),
    )
}


def dataset(name: str) -> Dataset:
    """Return the published data set called ``name``.

    Raises:
        UserError: there is none of that name; the message lists the known ones.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set '{name}'{nearest(name, DATASETS)}; known: {', '.join(DATASETS)}")
    return DATASETS[name]


def dataset_of_folder(folder: str) -> Dataset | None:
    """Return the data set whose published lists lie in folders of this name."""
    return next((d for d in DATASETS.values() if d.folder == folder), None)
