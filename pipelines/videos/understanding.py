"""What a folder tree, or lists, were understood to mean: said before anything is decoded, or refused if unclear."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.videos.file_tree import FileTree, PassedOver
from pipelines.videos.folder_reading import FOLDER_LAYOUTS, READ_AS, Layout, Meaning, Reading, plausible, read_as
from pipelines.videos.locate import loosely
from pipelines.videos.split_names import split_in_name
from vlmodels.errors import UserError, shortened

SHOWN = 5
"""Names or splits that a line lists before it says how many more there are."""
KINDS = 15
"""Kinds of files that it lists."""


@dataclass(frozen=True)
class Understanding:
    """What was understood of a folder or of lists.

    Attributes:
        place: path or URI of the videos.
        layout: how they were read.
        videos: number of videos.
        classes: class names in label order.
        splits: number of videos of each split; "" for those in none.
        unlabelled: videos without a class.
        example: the first of them.
        passed_over: files that are not taken as videos.
        without_videos: folders that hold none.
        notes: what else a user should know, in a few words each.
        meanings: class and split of each folder of videos; of lists, nothing.
    """

    place: str
    layout: Layout
    videos: int
    classes: tuple[str, ...]
    splits: tuple[tuple[str, int], ...]
    unlabelled: int = 0
    example: str = ""
    passed_over: tuple[PassedOver, ...] = ()
    without_videos: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    meanings: Mapping[str, Meaning] = field(default_factory=dict, repr=False)

    def lines(self) -> tuple[str, str]:
        """Return what is taken, and what is not, in a line each."""
        return (
            f"{count(self.videos, 'video')} of {self._classes_text()} in {self.place}, "
            f"read as {self._reading()}: {self._splits_text()}",
            "; ".join(self._remarks()) or "no file passed over",
        )

    def _classes_text(self) -> str:
        """Return the number of classes, and the name of a single one: it may be a folder that is no class."""
        number = count(len(self.classes), "class", "classes")
        return f"{number} ('{shortened(self.classes[0])}')" if len(self.classes) == 1 else number

    def _reading(self) -> str:
        if self.layout == "splits" and not self.classes:
            return "split folders without class folders"
        if self.layout == "splits" and any(meaning.label and not meaning.split for meaning in self.meanings.values()):
            return "class folders beside split folders"
        return READ_AS[self.layout]

    def _splits_text(self) -> str:
        named = [(name, number) for name, number in self.splits if name]
        if not named:
            return "no split"
        rest = next((number for name, number in self.splits if not name), 0)
        texts = [f"{_with_part(name)} {number}" for name, number in named]
        return listed(texts) + (f", {rest} in no split" if rest else "")

    def _remarks(self) -> Iterator[str]:
        if self.passed_over:
            total = sum(one.count for one in self.passed_over)
            yield f"{count(total, 'file')} passed over: {_kinds(self.passed_over)}"
        if self.unlabelled:
            yield f"{count(self.unlabelled, 'video')} without a class ({self.example})"
        if self.without_videos:
            yield f"no videos in {listed([f'{folder}/' for folder in self.without_videos])}"
        yield from self.notes


def understand_folder(
    tree: FileTree, place: str, classes: Sequence[str] | None = None, layout: Layout | None = None
) -> Understanding:
    """Decide what a tree of files means.

    Args:
        tree: the files.
        place: path or URI of the tree.
        classes: class names that the folders have to match, if a label file gives them.
        layout: how to read it; None to find out.

    Raises:
        UserError: no videos, frame folders alone, or two plausible readings and no ``layout``.
    """
    if not tree.videos and not tree.damaged:
        raise UserError(f"{place}: {_nothing_in(tree)}")
    if layout == "list":
        raise UserError(f"--layout list is for lists of videos; {place} is a folder")
    reading = read_as(layout, tree.counts) if layout else _only(plausible(tree.counts), place, classes)
    names = reading.labels
    if not layout and classes is None:
        _refuse_doubles(names, place)
    return Understanding(
        place=place,
        layout=reading.layout,
        videos=len(tree.videos) + len(tree.damaged),
        classes=tuple(classes) if classes is not None else names,
        splits=tuple(sorted(reading.splits.items())),
        unlabelled=reading.unlabelled,
        example=_first_unlabelled(tree, reading),
        passed_over=tree.passed_over,
        without_videos=tree.without_videos,
        notes=tuple(_tree_notes(tree)),
        meanings=reading.meanings,
    )


def _first_unlabelled(tree: FileTree, reading: Reading) -> str:
    if not reading.unlabelled:
        return ""
    paths = (*tree.videos, *(path for path, _ in tree.damaged))
    return min(path for path in paths if not reading.meanings[path.rpartition("/")[0]].label)


def understand_lists(
    place: str, classes: Sequence[str], splits: Iterable[str], unused: Mapping[str, Sequence[str]], notes: Iterable[str]
) -> Understanding:
    """Say what lists mean.

    Args:
        place: path or URI of the videos.
        classes: class names in label order.
        splits: of each video, the lists or splits that hold it, joined by "|".
        unused: columns that nothing reads, by list.
        notes: what else a user should know.
    """
    held = list(splits)
    counts = Counter(name for split in held for name in split.split("|"))
    columns = dict.fromkeys(name for names in unused.values() for name in names)
    said = [f"columns not used: {', '.join(columns)}"] if columns else []
    if doubles := _doubles(classes):
        said.append(f"classes that differ in case, spaces, underscores or accents alone: {listed(doubles)}")
    return Understanding(
        place=place,
        layout="list",
        videos=len(held),
        classes=tuple(classes),
        splits=tuple(sorted(counts.items())),
        notes=(*said, *notes),
    )


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 video``, ``2 videos``."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def listed(texts: Sequence[str], most: int = SHOWN) -> str:
    """Return texts joined by commas, the first ``most`` of them and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _kinds(passed_over: Iterable[PassedOver]) -> str:
    return listed([f"{one.kind} {one.count} ({one.example})" for one in passed_over], KINDS)


def _with_part(name: str) -> str:
    """Return a split's name, with the part that it stands for where the two differ."""
    part = split_in_name(name)
    return name if part is None or name.lower() == part else f"{name} ({part})"


# ------------------------------------------------------------------------------------------------------- refusals


def _nothing_in(tree: FileTree) -> str:
    if tree.frame_folders:
        folders = listed([f"{folder or '.'}/" for folder in tree.frame_folders])
        if tree.frame_folders == ("",):
            return "it holds the numbered pictures of one video; name the folder around it, or a list of such folders"
        return (
            f"no videos, but {count(len(tree.frame_folders), 'folder')} of numbered pictures ({folders}); of a store, "
            "frames as pictures are not read: copy the folders to this machine"
        )
    found = f"; passed over: {_kinds(tree.passed_over)}" if tree.passed_over else ""
    return (
        "no videos here or in its folders; expected ROOT/CLASS/video.mp4, ROOT/train/CLASS/video.mp4, or "
        f"ROOT/video.mp4{found}"
    )


def _only(readings: Sequence[Reading], place: str, classes: Sequence[str] | None) -> Reading:
    """Return the one reading that the names allow; with class names, the one whose folders they name."""
    if classes is not None and (named := _named_by(readings, classes)):
        return named
    if len(readings) == 1:
        return readings[0]
    ways = "; or as ".join(f"{READ_AS[one.layout]} (--layout {one.layout}): {_in_words(one)}" for one in readings)
    raise UserError(f"{place} can be read in {len(readings)} ways: as {ways}. Say which, or rename the folders")


def _named_by(readings: Sequence[Reading], classes: Sequence[str]) -> Reading | None:
    """Return the reading all of whose class folders are named ``classes``: of several, the one with most classes."""
    options = list(readings)
    if [one.layout for one in options] == ["splits"]:
        options.append(read_as("classes", options[0].counts))  # a class may be called test
    known = {loosely(name) for name in classes}
    named = [one for one in options if one.labels and {loosely(name) for name in one.labels} <= known]
    least = min((one.unlabelled for one in named), default=0)
    best = [one for one in named if one.unlabelled == least]
    return best[0] if len(best) == 1 else None


def _in_words(reading: Reading) -> str:
    names = f"{count(len(reading.labels), 'class', 'classes')} ({listed(reading.labels)})" if reading.labels else ""
    splits = [f"{name} {number}" for name, number in sorted(reading.splits.items()) if name]
    without = f"{count(reading.unlabelled, 'video')} without a class" if reading.unlabelled else ""
    return ", ".join(filter(None, (names, *splits, without)))


def _doubles(names: Collection[str]) -> list[str]:
    """Return groups of names that only case, spaces, underscores or the form of accents tell apart."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[loosely(name)].append(name)
    several = ([f"'{name}'" for name in found] for found in alike.values() if len(found) > 1)
    return [" and ".join([listed(found[:-1]), found[-1]]) for found in several]


def _refuse_doubles(names: Collection[str], place: str) -> None:
    """Refuse class folders that are most often one class, spelled twice."""
    if doubles := _doubles(names):
        raise UserError(
            f"{place}: class folders that differ in case, spaces, underscores or accents alone: {listed(doubles)}; "
            f"rename them if they are one class, or say --layout {' or '.join(FOLDER_LAYOUTS[:2])} if they are two"
        )


def _tree_notes(tree: FileTree) -> Iterator[str]:
    if tree.damaged:
        path, reason = tree.damaged[0]
        yield f"{count(len(tree.damaged), 'video')} set aside ({path}: {reason})"
    if tree.frame_folders:
        folders = listed([f"{folder or '.'}/" for folder in tree.frame_folders])
        what = f"{count(len(tree.frame_folders), 'folder')} of numbered pictures"
        if tree.frame_folders[-1] in tree.videos:
            yield f"{what}, each taken as a video"
        else:
            yield f"{what} not taken beside video files ({folders}): list them to take them"
