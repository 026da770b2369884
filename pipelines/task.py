"""What the protocols share: the task that they are given, and finding listed videos among the ingested ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pipelines.config import ProtocolConfig
from pipelines.data.keptlists import LISTS
from pipelines.data.lists import ListFolder, VideoList
from pipelines.data.locate import known_folders, may_be
from pipelines.own_splits import hold_out, hold_out_classes
from pipelines.splits import NOTHING, Clip, Source, Split, content_of, eval_set, examples
from vlmodels.errors import UserError

TRAIN_LISTS = ("train", "train1", "training")
TEST_LISTS = ("val", "validation", "val1", "test")
OST = "_filtered_OST"
"""Ending of the names of OST's lists, which are ViFi-CLIP's without folder names."""


class Tested(NamedTuple):
    """Clips to be scored among ``classes``; ``data`` is the folder of another data set than the one that trains."""

    name: str
    clips: Sequence[Clip]
    classes: Sequence[str]
    data: str = ""


@dataclass(frozen=True)
class Task:
    """What a protocol is given."""

    config: ProtocolConfig
    data: Source
    seed: int
    tests: tuple[Source, ...] = ()

    def lists(
        self, needed: Callable[[str], object], *, source: Source | None = None, dataset: str | None = None
    ) -> ListFolder | None:
        """The folder of lists to read, or None where the data is the user's own.

        It is the one that the user names; else that of the lists that ingest kept, if they are of a published data set
        or at least one of them is ``needed`` by the protocol. What is missing in it is told when it is read: nobody's
        split may pass for the published one.
        """
        c, source = self.config, source or self.data
        labels = {"": c.labels, "base": c.base_labels, "novel": c.novel_labels}
        if c.lists is not None:
            return ListFolder.open(c.lists, dataset or c.dataset, labels, c.hmdb_names)
        kept = Path(source.folder) / LISTS
        folder = None
        if source is not NOTHING and kept.is_dir():
            folder = ListFolder.open(kept, dataset, labels, c.hmdb_names)
            if folder.dataset is None and not any(map(needed, folder.names())):
                folder = None
        if folder is None and (c.train_list or c.test_lists):
            raise UserError(
                "protocol.train_list and protocol.test_lists name lists, but there are none; pass --lists DIR"
            )
        return folder

    def split(
        self,
        train_classes: Sequence[str],
        train: Sequence[Clip],
        tests: Sequence[Tested],
        source: str,
        *,
        notes: Sequence[str] = (),
        lists: Sequence[VideoList] = (),
        folders: Sequence[ListFolder | None] = (),
    ) -> Split:
        """Hold out what selects, see that nothing is trained on and scored, and put everything together."""
        told = [*notes, *self._leaks(train, tests)]
        names = dict.fromkeys([*train_classes, *(name for test in tests for name in test.classes)])
        for folder in folders:
            told += folder.about_names(names) if folder is not None else []
        unseen: tuple[str, ...] = ()
        if self.config.holdout_classes and train:
            train_classes, unseen = hold_out_classes(train_classes, self.config.holdout_classes, self.seed)
        seen = [clip for clip in train if clip.label not in unseen]
        fit, select = hold_out(seen, self.config.holdout, self.seed)
        return Split(
            protocol=self.config.name,
            seed=self.seed,
            train_classes=tuple(train_classes),
            train=examples(fit, train_classes),
            select=examples(select, train_classes),
            select_novel=eval_set("select_novel", train, unseen) if unseen else None,
            tests=tuple(eval_set(*test) for test in tests),
            source=source,
            dataset=self._dataset(folders),
            content=content_of([*fit, *select]),
            lists={name: digest for one in lists for name, digest in one.files.items()},
            notes=tuple(dict.fromkeys(told)),
        )

    def _dataset(self, folders: Sequence[ListFolder | None]) -> str:
        """What the result is a result on: the trained data set, or those that are only scored."""
        known = next((f.dataset.name for f in folders if f is not None and f.dataset is not None), "")
        if self.data is NOTHING:
            return "+".join(source.name for source in self.tests)
        return self.config.dataset or known or self.data.name

    def _leaks(self, train: Sequence[Clip], tests: Sequence[Tested]) -> list[str]:
        """Refuse what is trained on and scored, unless the user allows it; copies of files are only told."""
        trained, files = {clip.clip_id for clip in train}, {clip.sha256 for clip in train} - {""}
        notes = []
        for test in tests:
            same = [c.uri for c in test.clips if (c.sha256 in files if test.data else c.clip_id in trained)]
            if same and not self.config.allow_leak:
                raise UserError(
                    f"{len(same)} videos are trained on and scored in {test.name} too (for instance {min(same)}): the "
                    "score would mean nothing. Test on other videos (--test, protocol.test_lists), or set "
                    "protocol.allow_leak=true"
                )
            if copies := sum(clip.sha256 in files for clip in test.clips) - len(same):
                notes.append(f"{copies} videos scored in {test.name} are copies of files that are trained on")
        return notes


class Finder:
    """Finds listed videos among the ingested clips: as they are, else by a file name or stem that is unique.

    A folder is taken at its word where it names another class or part of the data than the list (``data/locate.py``).
    """

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._by_uri = {clip.uri: clip for clip in clips}
        self._labels = {clip.label for clip in clips} - {""}
        names: dict[str, list[Clip]] = defaultdict(list)
        for clip in clips:
            name = clip.uri.rsplit("/", 1)[-1]
            for key in {name, _stem(name)}:
                names[key].append(clip)
        self._by_name = {name: found[0] for name, found in names.items() if len(found) == 1}

    def __call__(self, path: str, label: str = "", known: frozenset[str] = frozenset()) -> Clip | None:
        """The clip that ``path`` names, or None; ``label`` and ``known`` folders as in ``locate.may_be``."""
        if path in self._by_uri:
            return self._by_uri[path]
        name = path.rsplit("/", 1)[-1]
        clip = self._by_name.get(name) or self._by_name.get(_stem(name))
        return clip if clip is not None and may_be(path, clip.uri, known, label) else None

    def listed(self, videos: VideoList) -> list[Clip]:
        """Clips of a list, each with the label that the list gives it.

        Raises:
            UserError: videos that were never ingested.
        """
        known = known_folders((line.path for line in videos.lines), [*videos.classes, *self._labels])
        clips, absent = [], []
        for line in videos.lines:
            label = videos.classes[line.label]
            clip = self(line.path, label, known)
            if clip is None:
                absent.append(line.path)
            else:
                clips.append(replace(clip, label=label))
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


def test_names(folder: ListFolder) -> tuple[str, ...]:
    """Names of the lists to test on: the data set's, else val1 to val3, else the first of the usual names."""
    if folder.dataset is not None:
        named = [name if folder.has(name) else f"{name}{OST}" for name in folder.dataset.tests]
        return tuple(named) if any(map(folder.has, named)) else folder.dataset.tests
    return present(folder, ("val1", "val2", "val3")) or present(folder, TEST_LISTS)[:1] or TEST_LISTS[:1]


def present(folder: ListFolder, names: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that are lists of the folder."""
    return tuple(name for name in names if folder.has(name))


def train_list(folder: ListFolder, config: ProtocolConfig) -> str | None:
    """The list to train on: the one that ``config`` names, else the data set's or the first of the usual names."""
    own = (folder.dataset.train,) if folder.dataset else ()
    return config.train_list or next(iter(present(folder, (*own, *TRAIN_LISTS))), None)
