"""The request that every protocol answers: which lists it may read, and how its clips become a split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipelines.config.schema import ProtocolConfig
from pipelines.protocols.own_split import hold_out, hold_out_classes
from pipelines.protocols.split import NOTHING, Clip, Source, Split, content_of, eval_set, examples
from pipelines.videos.kept_lists import LISTS
from pipelines.videos.list_folder import ListFolder, VideoList
from vlmodels.errors import UserError


class ScoredClips(NamedTuple):
    """Clips to be scored among ``classes``; ``data`` is the folder of their data set, if it is not the trained one."""

    name: str
    clips: Sequence[Clip]
    classes: Sequence[str]
    data: str = ""


@dataclass(frozen=True)
class SplitRequest:
    """The settings and the data that a protocol makes a split of.

    Attributes:
        config: the protocol's settings.
        data: the data set to train on.
        seed: draws the clips, or names the published subset.
        tests: other data sets to score.
    """

    config: ProtocolConfig
    data: Source
    seed: int
    tests: tuple[Source, ...] = ()

    def lists(
        self, needed: Callable[[str], object], *, source: Source | None = None, dataset: str | None = None
    ) -> ListFolder | None:
        """Return the folder of lists to read, or None if the data is the user's own and has none.

        It is the folder that the user names; else that of the lists that ingest kept, if they belong to a published
        data set or the protocol needs at least one of them. Reading a list that is missing there raises an error: an
        own split must never pass for the published one.
        """
        config = self.config
        source = source or self.data
        labels = {"": config.labels, "base": config.base_labels, "novel": config.novel_labels}
        if config.lists is not None:
            return ListFolder.open(config.lists, dataset or config.dataset, labels, config.hmdb_names)
        kept = Path(source.folder) / LISTS
        folder = None
        if source is not NOTHING and kept.is_dir():
            folder = ListFolder.open(kept, dataset, labels, config.hmdb_names)
            if folder.dataset is None and not any(map(needed, folder.names())):
                folder = None
        if folder is None and (config.train_list or config.test_lists):
            raise UserError(
                "protocol.train_list and protocol.test_lists name lists, but there are none; pass --lists DIR"
            )
        return folder

    def split(
        self,
        train_classes: Sequence[str],
        train: Sequence[Clip],
        tests: Sequence[ScoredClips],
        source: str,
        *,
        notes: Sequence[str] = (),
        lists: Sequence[VideoList] = (),
        folders: Sequence[ListFolder | None] = (),
    ) -> Split:
        """Return the split of these clips, with a part of the training clips held out for selection.

        Raises:
            UserError: videos are trained on and scored, or a test set has no decodable clip.
        """
        names = dict.fromkeys([*train_classes, *(name for test in tests for name in test.classes)])
        all_notes = [*notes, *self._leaks(train, tests)]
        for folder in folders:
            all_notes += folder.name_caveats(names) if folder is not None else []
        unseen: tuple[str, ...] = ()
        if self.config.holdout_classes and train:
            train_classes, unseen = hold_out_classes(train_classes, self.config.holdout_classes, self.seed)
            all_notes += [_without(unseen, len(train_classes), scored=any(not test.data for test in tests))]
        seen = [clip for clip in train if clip.label not in unseen]
        fit, select = hold_out(seen, self.config.holdout, self.seed)
        return Split(
            protocol=self.config.name,
            seed=self.seed,
            train_classes=tuple(train_classes),
            train=examples(fit, train_classes),
            select=examples(select, train_classes),
            select_novel=eval_set("select_novel", train, unseen) if unseen else None,
            tests=tuple(eval_set(*_of_others(test, unseen)) for test in tests),
            unseen=tuple(eval_set(test.name, test.clips, unseen) for test in tests if _has_any(test, unseen)),
            source=source,
            dataset=self._dataset(folders),
            content=content_of([*fit, *select]),
            lists={name: digest for one in lists for name, digest in one.files.items()},
            notes=tuple(dict.fromkeys(all_notes)),
        )

    def _leaks(self, train: Sequence[Clip], tests: Sequence[ScoredClips]) -> list[str]:
        """Refuse videos that are trained on and scored, unless the user allows it; return notes on copies of files."""
        trained = {clip.clip_id for clip in train}
        files = {clip.sha256 for clip in train} - {""}
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

    def _dataset(self, folders: Sequence[ListFolder | None]) -> str:
        """Return the data set that the result belongs to: the trained one, else those that are scored."""
        if self.data is NOTHING:
            return "+".join(source.name for source in self.tests)
        known = next((f.dataset.name for f in folders if f is not None and f.dataset is not None), "")
        return self.config.dataset or known or self.data.name


def _of_others(test: ScoredClips, unseen: Collection[str]) -> ScoredClips:
    """Return a test set of the data that trains without the classes that are held out."""
    if test.data or not unseen:
        return test
    return test._replace(classes=tuple(name for name in test.classes if name not in unseen))


def _has_any(test: ScoredClips, unseen: Collection[str]) -> bool:
    """Return whether a test set of the data that trains has decodable clips of the classes that are held out."""
    return not test.data and any(clip.ok and clip.label in unseen for clip in test.clips)


def _without(unseen: Sequence[str], left: int, *, scored: bool) -> str:
    some = ", ".join(unseen[:5]) + (f" and {len(unseen) - 5} more" if len(unseen) > 5 else "")
    where = f"{left} train and are scored, so that scores compare with no others" if scored else f"{left} train"
    return f"{len(unseen)} classes are held out whole ({some}); the other {where}"
