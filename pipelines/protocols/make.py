"""Evaluation protocols: pure functions from lists, labels and a seed to the clips that train and are scored.

A protocol never looks at a frame. The same manifest, lists and seed give the same :class:`Split`, and its digest
changes if and only if what is trained on or scored changes.

Lists are taken from ``protocol.lists``, else from those that ingest kept with the data; where these say nothing of the
protocol, and are of no published data set, the clips are split by a seed (``pipelines/protocols/own.py``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from pipelines.config.schema import ProtocolConfig
from pipelines.protocols.finder import Finder, present, usable
from pipelines.protocols.own import base_and_novel, few_shots, own_train_test, part_as_given
from pipelines.protocols.request import TEST_LISTS, TRAIN_LISTS, Task, Tested, test_names, train_list
from pipelines.protocols.retrieval import retrieval
from pipelines.protocols.split import NOTHING, Clip, Scoring, Source, Split
from pipelines.videos.catalog import DATASETS
from pipelines.videos.list_folder import ListFolder, VideoList
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
    folder = task.lists(re.compile(r"fs_base_s\d+_train|base_val|novel_val").fullmatch)
    if folder is None:
        train, test, source, notes = own_train_test(task.data.clips, config.test_fraction, config.split_seed)
        base, novel = base_and_novel(train, task.data.classes)
        chosen = few_shots([c for c in train if c.label in set(base)], config.shots, seed, fewer=config.fewer_shots)
        tests = [Tested(name, _of(test, names), names) for name, names in (("base", base), ("novel", novel))]
        return task.split(base, chosen, tests, source, notes=notes)
    subsets = [n for n in folder.names() if re.fullmatch(r"fs_base_s\d+_train", n)]
    if subsets and f"fs_base_s{seed}_train" not in subsets:
        there = ", ".join(re.findall(r"\d+", " ".join(subsets)))
        raise UserError(
            f"seed {seed} takes the training subset fs_base_s{seed}_train, which is not in {folder.place}; ingest with "
            f"that list too, or take seeds of those there ({there}): --seeds, in a sweep --winner-seeds"
        )
    listed, *scored = (folder.read(stem) for stem in (f"fs_base_s{seed}_train", "base_val", "novel_val"))
    _check_shots(listed, config)
    find = Finder(task.data.clips)
    train, notes = usable(find.listed(listed), listed)
    return task.split(
        listed.classes,
        train,
        [Tested(t.name.removesuffix("_val"), find.listed(t), t.classes) for t in scored],
        f"{_lists_of(folder)}, training subset {seed}",
        notes=notes,
        lists=[listed, *scored],
        folders=[folder],
    )


def few_shot(task: Task) -> Split:
    """Train on K videos of every class; score all classes on the first test list, which is the only one apart.

    The published lists of K shots come from training split 1 and overlap the test lists 2 and 3. They are one draw;
    own lists may have one for each seed.
    """
    config, seed = task.config, task.seed
    folder = task.lists(re.compile(r"train\d+_few_shot_\d+").fullmatch)
    if folder is None:
        train, test, source, notes = own_train_test(task.data.clips, config.test_fraction, config.split_seed)
        classes = _trained(train, task.data.classes)
        chosen = few_shots(train, config.shots, seed, fewer=config.fewer_shots)
        return task.split(classes, chosen, [Tested("test", _of(test, classes), classes)], source, notes=notes)
    draws = [n for n in folder.names() if re.fullmatch(rf"train\d+_few_shot_{config.shots}", n)]
    if len(draws) > 1 or f"train{seed}_few_shot_{config.shots}" in draws:
        return _listed_supervised(task, folder, f"train{seed}_few_shot_{config.shots}")
    if not draws:
        held = sorted({int(n.rpartition("_")[2]) for n in folder.names() if "_few_shot_" in n})
        raise UserError(
            f"no list of {config.shots} shots in {folder.place} (train1_few_shot_{config.shots}); set "
            f"protocol.shots to one of {', '.join(map(str, held)) or 'none'}, or ingest with the list"
        )
    told = f"the {config.shots}-shot list is one draw: seeds change the training alone"
    return _listed_supervised(task, folder, f"train1_few_shot_{config.shots}", notes=[told])


def supervised(task: Task) -> Split:
    """Train on all training videos of all classes; score the test list."""
    named = (task.config.train_list,) if task.config.train_list else TRAIN_LISTS
    folder = task.lists(lambda name: name in named)
    if folder is not None:
        return _listed_supervised(task, folder, _train_list(folder, task.config))
    train, test, source, notes = own_train_test(task.data.clips, task.config.test_fraction, task.config.split_seed)
    classes = _trained(train, task.data.classes)
    return task.split(classes, train, [Tested("test", _of(test, classes), classes)], source, notes=notes)


def _train_list(folder: ListFolder, config: ProtocolConfig) -> str:
    stem = train_list(folder, config)
    if stem is None:
        raise UserError(
            f"no training list ({', '.join(TRAIN_LISTS)}) in {folder.place}; there are "
            f"{', '.join(folder.names()) or 'none'}: ingest with it, pass --lists DIR, or name one of these with "
            "--set protocol.train_list=NAME"
        )
    return stem


def _listed_supervised(task: Task, folder: ListFolder, stem: str, notes: Sequence[str] = ()) -> Split:
    listed = folder.read(stem)
    tests = [folder.read(name) for name in task.config.test_lists or test_names(folder)[:1]]
    find = Finder(task.data.clips)
    train, told = usable(find.listed(listed), listed)
    for test in tests:
        if test.classes != listed.classes:
            raise UserError(f"{test.path} counts other classes ({test.labels_path}) than {listed.path}")
    return task.split(
        listed.classes,
        train,
        [Tested(test.name, find.listed(test), test.classes) for test in tests],
        f"{_lists_of(folder)}: {listed.name}, tested on {', '.join(t.name for t in tests)}",
        notes=[*notes, *told],
        lists=[listed, *tests],
        folders=[folder],
    )


def zero_shot(task: Task) -> Split:
    """Score data sets that were not trained on, each list among its own classes.

    With further data sets to test on, all training videos of the data train (as the papers do on Kinetics-400);
    without, nothing trains and the data itself is scored.
    """
    tests: list[Tested] = []
    lists: list[VideoList] = []
    folders: list[ListFolder | None] = []
    for source in task.tests or (task.data,):
        found, used, folder = _zero_shot_tests(task, source)
        tests += found
        lists += used
        folders.append(folder)
    names = ", ".join(source.name for source in task.tests or (task.data,))
    if not task.tests or task.data is NOTHING:
        return task.split((), (), tests, f"test videos of {names}", lists=lists, folders=folders)
    folder = task.lists(lambda name: name in TRAIN_LISTS)
    notes: list[str] = []
    if folder is not None:
        listed = folder.read(_train_list(folder, task.config))
        train, notes = usable(Finder(task.data.clips).listed(listed), listed)
        classes, trained_on = listed.classes, f"list {listed.name} of {task.data.name}"
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
        classes,
        train,
        tests,
        f"{trained_on}, tested on {names}",
        notes=notes,
        lists=lists,
        folders=[folder, *folders],
    )


def _zero_shot_tests(task: Task, source: Source) -> tuple[list[Tested], list[VideoList], ListFolder | None]:
    """The test sets of one data set: its test lists, else its test part, else all of its labelled clips."""
    data = "" if source is task.data else source.folder
    chosen = task.config.test_lists
    folder = task.lists(
        lambda name: name in (chosen or ("val2", "val3", *TEST_LISTS)),
        source=source,
        dataset=source.name if source.name in DATASETS else None,
    )
    if folder is None:
        labelled = part_as_given([clip for clip in source.clips if clip.label], "test")
        classes = _trained(labelled, source.classes)
        return [Tested(f"{source.name}/all", labelled, classes, data)], [], None
    stems = chosen or present(folder, test_names(folder))
    if not stems:
        raise UserError(
            f"{folder.place} has none of the test lists {', '.join(test_names(folder))} of {source.name}; there are "
            f"{', '.join(folder.names()) or 'none'}: ingest with them, pass --lists DIR, or name some of these with "
            "--set protocol.test_lists=NAME,NAME"
        )
    find, lists = Finder(source.clips), [folder.read(stem) for stem in stems]
    return [Tested(f"{source.name}/{t.name}", find.listed(t), t.classes, data) for t in lists], lists, folder


def _check_shots(listed: VideoList, config: ProtocolConfig) -> None:
    counts = Counter(line.label for line in listed.lines)
    least, most = min(counts.values()), max(counts.values())
    if most != config.shots or (least != most and not config.fewer_shots):
        found = f"{most}" if least == most else f"{least} to {most}"
        raise UserError(
            f"{listed.path} has {found} videos of a class, protocol.shots is {config.shots}; set protocol.shots={most}"
            + ("" if least == most else " and protocol.fewer_shots=true")
        )


def _lists_of(folder: ListFolder) -> str:
    return f"published lists of {folder.dataset.name}" if folder.dataset else f"lists in {folder.place.resolve().name}"


def _of(clips: Sequence[Clip], classes: Sequence[str]) -> list[Clip]:
    known = set(classes)
    return [clip for clip in clips if clip.label in known]


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
