"""What the protocols share: the task that they are given, and finding listed videos among the ingested ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.config import ProtocolConfig
from pipelines.data.keptlists import LISTS
from pipelines.data.lists import ListFolder, VideoList
from pipelines.own_splits import hold_out
from pipelines.splits import NOTHING, Clip, EvalSet, Source, Split, content_of, examples
from vlmodels.errors import UserError

TRAIN_LISTS = ("train", "train1", "training")
TEST_LISTS = ("val", "validation", "val1", "test")


@dataclass(frozen=True)
class Task:
    """What a protocol is given."""

    config: ProtocolConfig
    data: Source
    seed: int
    tests: tuple[Source, ...] = ()

    def lists(self, *stems: str, source: Source | None = None, dataset: str | None = None) -> ListFolder | None:
        """The folder of lists that holds all ``stems``, or None where the data is the user's own.

        Lists that the user names are returned whatever they hold: what is missing is then told when it is read.
        """
        c, source = self.config, source or self.data
        labels = {"": c.labels, "base": c.base_labels, "novel": c.novel_labels}
        if c.lists is not None:
            return ListFolder.open(c.lists, dataset or c.dataset, labels, c.hmdb_names)
        kept = Path(source.folder) / LISTS
        if source is NOTHING or not kept.is_dir():
            return None
        folder = ListFolder.open(kept, dataset, labels, c.hmdb_names)
        return folder if all(folder.has(stem) for stem in stems) else None

    def _dataset(self, folder: ListFolder | None) -> str:
        """What the result is a result on: the trained data set, or those that are only scored."""
        if self.config.dataset:
            return self.config.dataset
        if folder is not None and folder.dataset is not None:
            return folder.dataset.name
        return self.data.name or "+".join(source.name for source in self.tests)

    def split(
        self,
        train_classes: Sequence[str],
        train: Sequence[Clip],
        tests: Sequence[EvalSet],
        source: str,
        *,
        notes: Sequence[str] = (),
        lists: Sequence[VideoList] = (),
        folder: ListFolder | None = None,
    ) -> Split:
        """Hold out what selects, and put everything together."""
        fit, select = hold_out(train, self.config.holdout, self.seed)
        told = list(notes)
        scored = dict.fromkeys(name for test in tests for name in test.classes)
        if folder is not None and (swapped := folder.swapped([*train_classes, *scored])):
            told.append(
                f"class names as published, in which {', '.join(swapped)} are swapped in pairs "
                "(protocol.hmdb_names=corrected puts them right)"
            )
        return Split(
            protocol=self.config.name,
            seed=self.seed,
            train_classes=tuple(train_classes),
            train=examples(fit, train_classes),
            select=examples(select, train_classes),
            tests=tuple(tests),
            source=source,
            dataset=self._dataset(folder),
            content=content_of([*fit, *select]),
            lists={name: digest for one in lists for name, digest in one.files.items()},
            notes=tuple(told),
        )


class Finder:
    """Finds listed videos among the ingested clips: as they are, else by a file name or stem that is unique."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._by_uri = {clip.uri: clip for clip in clips}
        names: dict[str, list[Clip]] = defaultdict(list)
        for clip in clips:
            name = clip.uri.rsplit("/", 1)[-1]
            names[name].append(clip)
            names[_stem(name)].append(clip)
        self._by_name = {name: found[0] for name, found in names.items() if len(found) == 1}

    def __call__(self, path: str) -> Clip | None:
        """The clip that ``path`` names, or None."""
        name = path.rsplit("/", 1)[-1]
        return self._by_uri.get(path) or self._by_name.get(name) or self._by_name.get(_stem(name))

    def listed(self, videos: VideoList) -> list[Clip]:
        """Clips of a list, each with the label that the list gives it.

        Raises:
            UserError: videos that were never ingested.
        """
        clips, absent = [], []
        for line in videos.lines:
            clip = self(line.path)
            if clip is None:
                absent.append(line.path)
            else:
                clips.append(replace(clip, label=videos.classes[line.label]))
        if absent:
            raise UserError(
                f"{videos.path.name}: {len(absent)} of {len(videos.lines)} listed videos were never ingested "
                f"(first: {absent[0]}); run pipelines/ingest.py with this list too"
            )
        return clips


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def usable(listed: Sequence[Clip], videos: VideoList) -> tuple[list[Clip], list[str]]:
    """The listed training videos that can be decoded, and a note on how many cannot."""
    good = [clip for clip in listed if clip.ok]
    lost = len(listed) - len(good)
    return good, [f"{lost} of {len(listed)} training videos of {videos.name} cannot be decoded"] if lost else []


def refuse_leak(train: VideoList, test: VideoList, *, allow: bool) -> None:
    """Raise ``UserError`` if videos are on both lists, unless the user allows it."""
    both = {line.path for line in train.lines} & {line.path for line in test.lines}
    if both and not allow:
        raise UserError(
            f"{len(both)} videos of the training list {train.name} are on the test list {test.name} too "
            f"(for instance {min(both)}): its score would mean nothing. Test on another list "
            "(protocol.test_lists), or set protocol.allow_leak=true"
        )


def test_names(folder: ListFolder) -> tuple[str, ...]:
    """Names of the lists to test on: the data set's, else val1 to val3, else the first of the usual names."""
    if folder.dataset is not None:
        return folder.dataset.tests
    return present(folder, ("val1", "val2", "val3")) or present(folder, TEST_LISTS)[:1] or TEST_LISTS[:1]


def present(folder: ListFolder, names: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that are lists of the folder."""
    return tuple(name for name in names if folder.has(name))


def train_list(folder: ListFolder, config: ProtocolConfig) -> str | None:
    """The list to train on: the one that ``config`` names, else the data set's or the first of the usual names."""
    own = (folder.dataset.train,) if folder.dataset else ()
    return config.train_list or next(iter(present(folder, (*own, *TRAIN_LISTS))), None)
