"""Evaluation protocols: pure functions from lists, labels and a seed to the clips that train and are scored.

A protocol never looks at a frame. The same manifest, lists and seed give the same :class:`Split`, and its digest
changes if and only if what is trained on or scored changes.

Lists are taken from ``protocol.lists``, else from those that ingest kept with the data if the protocol finds what it
needs there, else the clips are split by a seed (``pipelines/own_splits.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipelines.config import ProtocolConfig
from pipelines.data.catalog import DATASETS
from pipelines.data.lists import ListFolder, VideoList
from pipelines.own_splits import base_and_novel, few_shots, own_train_test, part_as_given
from pipelines.pair_split import retrieval
from pipelines.splits import NOTHING, Clip, EvalSet, Scoring, Source, Split, eval_set
from pipelines.task import TRAIN_LISTS, Finder, Task, present, refuse_leak, test_names, train_list, usable
from vlmodels.errors import UserError, nearest


def make_split(
    config: ProtocolConfig, data: Source, seed: int, *, tests: Sequence[Source] = (), scoring: Scoring | None = None
) -> Split:
    """Apply the protocol that ``config`` names.

    Args:
        config: the protocol and its settings.
        data: the ingested data set that is trained on.
        seed: seed of an own split; number of the training subset (1, 2, 3) of published few-shot lists.
        tests: further ingested data sets to be scored (zero-shot).
        scoring: how videos will be looked at; part of the digest.

    Raises:
        UserError: unknown protocol, lists that do not fit the data, classes without usable clips.
    """
    if config.name not in PROTOCOLS:
        raise UserError(f"unknown protocol '{config.name}'{nearest(config.name, PROTOCOLS)}")
    split = PROTOCOLS[config.name](Task(config, data, seed, tuple(tests)))
    return replace(split, scoring=scoring)


# ------------------------------------------------------------------------------------------------ the protocols


def base_to_novel(task: Task) -> Split:
    """Train on K shots of the base classes; score base and novel clips, each among its own classes.

    Published lists (ViFi-CLIP's names: ``fs_base_s{seed}_train``, ``base_val``, ``novel_val``) are read as they are.
    """
    config, seed = task.config, task.seed
    folder = task.lists(f"fs_base_s{seed}_train", "base_val", "novel_val")
    if folder is None:
        train, test, notes = own_train_test(task.data.clips, config.test_fraction, config.split_seed)
        base, novel = base_and_novel(train, task.data.classes)
        chosen = few_shots([c for c in train if c.label in set(base)], config.shots, seed, fewer=config.fewer_shots)
        sets = [eval_set(name, test, names) for name, names in (("base", base), ("novel", novel))]
        return task.split(base, chosen, sets, _own(config), notes=notes)
    listed, *tests = (folder.read(stem) for stem in (f"fs_base_s{seed}_train", "base_val", "novel_val"))
    find = Finder(task.data.clips)
    train, notes = usable(find.listed(listed), listed)
    return task.split(
        listed.classes,
        train,
        [eval_set(t.name.removesuffix("_val"), find.listed(t), t.classes) for t in tests],
        f"published lists in {folder.place.name}, training subset {seed}",
        notes=notes,
        lists=[listed, *tests],
        folder=folder,
    )


def few_shot(task: Task) -> Split:
    """Train on K videos of every class; score all classes on the first test list, which is the only one apart.

    The published lists of K shots come from training split 1 and overlap the test lists 2 and 3.
    """
    config, seed = task.config, task.seed
    stem = f"train1_few_shot_{config.shots}"
    folder = task.lists(stem)
    if folder is None:
        train, test, notes = own_train_test(task.data.clips, config.test_fraction, config.split_seed)
        classes = _trained(train, task.data.classes)
        chosen = few_shots(train, config.shots, seed, fewer=config.fewer_shots)
        return task.split(classes, chosen, [eval_set("test", test, classes)], _own(config), notes=notes)
    if folder.has(f"train{seed}_few_shot_{config.shots}"):  # own lists have a draw for each seed
        stem = f"train{seed}_few_shot_{config.shots}"
    return _listed_supervised(task, folder, stem)


def supervised(task: Task) -> Split:
    """Train on all training videos of all classes; score the test list."""
    folder = task.lists()
    stem = train_list(folder, task.config) if folder is not None else None
    if folder is not None and stem is not None:
        return _listed_supervised(task, folder, stem)
    if folder is not None and task.config.lists is not None:
        raise UserError(
            f"no training list ({', '.join(TRAIN_LISTS)}) in {folder.place}; there are "
            f"{', '.join(folder.names()) or 'none'}: name one with --set protocol.train_list=NAME"
        )
    train, test, notes = own_train_test(task.data.clips, task.config.test_fraction, task.config.split_seed)
    classes = _trained(train, task.data.classes)
    return task.split(classes, train, [eval_set("test", test, classes)], _own(task.config), notes=notes)


def _listed_supervised(task: Task, folder: ListFolder, stem: str) -> Split:
    listed = folder.read(stem)
    stems = task.config.test_lists or test_names(folder)[:1]
    tests = [folder.read(name) for name in stems]
    find = Finder(task.data.clips)
    train, notes = usable(find.listed(listed), listed)
    for test in tests:
        if test.classes != listed.classes:
            raise UserError(f"{test.path} counts other classes ({test.labels_path}) than {listed.path}")
        refuse_leak(listed, test, allow=task.config.allow_leak)
    return task.split(
        listed.classes,
        train,
        [eval_set(test.name, find.listed(test), test.classes) for test in tests],
        f"published lists in {folder.place.name}: {listed.name}, tested on {', '.join(t.name for t in tests)}",
        notes=notes,
        lists=[listed, *tests],
        folder=folder,
    )


def zero_shot(task: Task) -> Split:
    """Score data sets that were not trained on, each list among its own classes.

    With further data sets to test on, all training videos of the data train (as the papers do on Kinetics-400);
    without, nothing trains and the data itself is scored.
    """
    tests, lists = [], []
    for source in task.tests or (task.data,):
        found, used = _zero_shot_tests(task, source)
        tests += found
        lists += used
    folder = task.lists()
    names = ", ".join(source.name for source in task.tests or (task.data,))
    if not task.tests or task.data is NOTHING:
        return task.split((), (), tests, f"test videos of {names}", lists=lists, folder=folder)
    stem = train_list(folder, task.config) if folder is not None else None
    notes: list[str] = []
    if folder is not None and stem is not None:
        listed = folder.read(stem)
        train, notes = usable(Finder(task.data.clips).listed(listed), listed)
        classes, trained_on = listed.classes, f"list {stem} of {task.data.name}"
        lists.append(listed)
    else:
        labelled = [clip for clip in task.data.clips if clip.label]
        train = [clip for clip in part_as_given(labelled, "train") if clip.ok]
        classes, trained_on = _trained(train, task.data.classes), f"training videos of {task.data.name}"
    known = {name.casefold() for name in classes}
    for test in tests:
        if same := [name for name in test.classes if name.casefold() in known]:
            notes.append(f"{len(same)} of the {len(test.classes)} classes of {test.name} are training classes by name")
    return task.split(
        classes, train, tests, f"{trained_on}, tested on {names}", notes=notes, lists=lists, folder=folder
    )


def _zero_shot_tests(task: Task, source: Source) -> tuple[list[EvalSet], list[VideoList]]:
    """The test sets of one data set: its test lists, else its test part, else all of its labelled clips."""
    data = "" if source is task.data else source.folder
    folder = task.lists(source=source, dataset=source.name if source.name in DATASETS else None)
    stems = () if folder is None else task.config.test_lists or present(folder, test_names(folder))
    if folder is not None and stems:
        find, lists = Finder(source.clips), [folder.read(stem) for stem in stems]
        return [eval_set(f"{source.name}/{t.name}", find.listed(t), t.classes, data) for t in lists], lists
    if folder is not None and task.config.lists is not None:
        raise UserError(
            f"{folder.place} has none of the test lists {', '.join(test_names(folder))} of {source.name}; there are "
            f"{', '.join(folder.names()) or 'none'}: name some with --set protocol.test_lists=NAME,NAME"
        )
    labelled = part_as_given([clip for clip in source.clips if clip.label], "test")
    return [eval_set(f"{source.name}/all", labelled, _trained(labelled, source.classes), data)], []


def _own(config: ProtocolConfig) -> str:
    return f"own split of the ingested data, split seed {config.split_seed}"


def _trained(clips: Sequence[Clip], classes: Sequence[str]) -> tuple[str, ...]:
    labels = {clip.label for clip in clips}
    return tuple(name for name in classes if name in labels)


PROTOCOLS: dict[str, Callable[[Task], Split]] = {
    "zero_shot": zero_shot,
    "few_shot": few_shot,
    "b2n": base_to_novel,
    "supervised": supervised,
    "retrieval": retrieval,
}
