"""What the protocols share: the task that they are given, and finding listed videos among the ingested ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipelines.config.schema import ProtocolConfig
from pipelines.protocols.finder import present
from pipelines.protocols.own import hold_out, hold_out_classes
from pipelines.protocols.split import NOTHING, Clip, Source, Split, content_of, eval_set, examples
from pipelines.videos.kept_lists import LISTS
from pipelines.videos.list_folder import ListFolder, VideoList
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


def test_names(folder: ListFolder) -> tuple[str, ...]:
    """Names of the lists to test on: the data set's, else val1 to val3, else the first of the usual names."""
    if folder.dataset is not None:
        named = [name if folder.has(name) else f"{name}{OST}" for name in folder.dataset.tests]
        return tuple(named) if any(map(folder.has, named)) else folder.dataset.tests
    return present(folder, ("val1", "val2", "val3")) or present(folder, TEST_LISTS)[:1] or TEST_LISTS[:1]


def train_list(folder: ListFolder, config: ProtocolConfig) -> str | None:
    """The list to train on: the one that ``config`` names, else the data set's or the first of the usual names."""
    own = (folder.dataset.train,) if folder.dataset else ()
    return config.train_list or next(iter(present(folder, (*own, *TRAIN_LISTS))), None)
