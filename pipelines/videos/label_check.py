"""Compare the classes that lists give their videos with the class folders that the videos lie in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vlmodels.errors import UserError

TOLERATED = 0.01
"""Share of videos in another class's folder that counts as mistakes of single lines, and is said but not refused."""
_SWAPPED = frozenset((frozenset(("kickball", "kick")), frozenset(("swordexercise", "sword"))))
"""Classes of HMDB-51 whose videos carry each other's name, as published."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A listed video: its path in the list or below the root, and its class."""

    path: str
    label: str


def check_labels(
    videos: Iterable[Labelled], classes: Sequence[str], way_out: str = "--layout list takes the labels as they are"
) -> list[str]:
    """Return a note on videos that lie in the folder of another class than their list says, if these are few.

    Args:
        videos: what is listed.
        classes: class names in label order.
        way_out: what to do where the folders are wrong.

    Raises:
        UserError: they are many: then numbers are shifted, or the label file is another list's.
    """
    known = {_letters(name): number for number, name in reversed(list(enumerate(classes)))}
    found = _Found(known)
    for video in videos:
        found.see(video)
    wrong = found.conflicts.total()
    if not wrong:
        return []
    (folder, label), _ = found.conflicts.most_common(1)[0]
    said = (
        f"{wrong} of {found.compared} videos in class folders have another class in the list "
        f"({found.examples[folder, label]}: folder '{classes[folder]}', label '{classes[label]}')"
    )
    if wrong <= TOLERATED * found.compared:
        return [said]
    shifted = sum(number for (at, given), number in found.conflicts.items() if given - at == 1)
    cause = "is it the label file of this list?"
    if shifted == wrong:
        cause = "its labels seem to start at 1, and the label file's ids start at 0: subtract 1 from each label"
    raise UserError(f"folder names and labels disagree: {said}; {cause} ({way_out})")


class _Found:
    """Counts of videos whose folder names a class, and of those where it is another than the label's."""

    def __init__(self, known: Mapping[str, int]) -> None:
        self.known = known
        self.compared = 0
        self.conflicts: Counter[tuple[int, int]] = Counter()
        self.examples: dict[tuple[int, int], str] = {}
        self._seen: dict[tuple[str, str], tuple[int, int] | None] = {}

    def see(self, video: Labelled) -> None:
        folder = video.path.rpartition("/")[0]
        if not folder:
            return
        key = (folder, video.label)
        if key not in self._seen:
            self._seen[key] = self._compare(folder, video.label)
        pair = self._seen[key]
        if pair is None:
            return
        self.compared += 1
        if pair[0] != pair[1]:
            self.conflicts[pair] += 1
            self.examples.setdefault(pair, video.path)

    def _compare(self, folder: str, label: str) -> tuple[int, int] | None:
        """Return the classes that the folder and the label name; None if the folder names none."""
        names = [_letters(name) for name in folder.split("/")]
        named = _letters(label)
        classes = [name for name in names if name in self.known]
        if not classes or named not in self.known:
            return None
        own = self.known[named]
        if named in classes or frozenset((classes[-1], named)) in _SWAPPED:
            return own, own
        return self.known[classes[-1]], own


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
