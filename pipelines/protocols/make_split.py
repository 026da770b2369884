"""Evaluation protocols: pure functions from lists, labels and a seed to the clips that train and are scored.

A protocol never reads a frame. The same manifest, lists and seed give the same :class:`Split`, and its digest changes
if and only if the clips that are trained on or scored change.

Lists come from ``protocol.lists``, else from those that ingest kept with the data; if the protocol uses none of these,
and they belong to no published data set, a seed splits the clips (``pipelines/protocols/own_split.py``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipelines.config.schema import ProtocolConfig
from pipelines.protocols.finder import Finder, usable
from pipelines.protocols.own_split import base_and_novel, few_shots, own_train_test, part_as_given
from pipelines.protocols.request import ScoredClips, SplitRequest
from pipelines.protocols.retrieval import retrieval
from pipelines.protocols.split import NOTHING, Clip, Scoring, Source, Split
from pipelines.videos.catalog import DATASETS
from pipelines.videos.list_choice import TEST_LISTS, TRAIN_LISTS, list_to_train, lists_to_test, present
from pipelines.videos.list_folder import ListFolder, VideoList
from vlmodels.errors import UserError, nearest


def make_split(
    config: ProtocolConfig, data: Source, seed: int, *, tests: Sequence[Source] = (), scoring: Scoring | None = None
) -> Split:
    """Return the split that the protocol ``config.name`` makes of the data.

    Args:
        config: the protocol and its settings.
        data: the ingested data set that is trained on.
        seed: draws the shots; the number of the training subset (1, 2, 3) of published few-shot lists.
        tests: further ingested data sets to score (zero-shot).
        scoring: the views that will be scored; part of the digest.

    Raises:
        UserError: unknown protocol, lists that do not fit the data, classes without usable clips.
    """
    if config.name not in _SPLITTERS:
        raise UserError(f"unknown protocol '{config.name}'{nearest(config.name, _SPLITTERS)}")
    split = _SPLITTERS[config.name](SplitRequest(config, data, seed, tuple(tests)))
    return replace(split, scoring=scoring)


# ------------------------------------------------------------------------------------------------ the protocols


def base_to_novel(request: SplitRequest) -> Split:
    """Train on K shots of the base classes; score base and novel clips, each among their own classes.

    Published lists (ViFi-CLIP's names: ``fs_base_s{seed}_train``, ``base_val``, ``novel_val``) are read as they are.
    """
    folder = request.lists(re.compile(r"fs_base_s\d+_train|base_val|novel_val").fullmatch)
    if folder is not None:
        return _listed_base_to_novel(request, folder)
    config, classes = request.config, request.data.classes
    train, test, source, notes = own_train_test(request.data.clips, config.test_fraction, config.split_seed)
    base, novel = base_and_novel(train, classes)
    chosen = few_shots(_of_classes(train, base), config.shots, request.seed, fewer=config.fewer_shots)
    tests = [
        ScoredClips("base", _of_classes(test, base), base),
        ScoredClips("novel", _of_classes(test, novel), novel),
    ]
    return request.split(base, chosen, tests, source, notes=notes)


def _listed_base_to_novel(request: SplitRequest, folder: ListFolder) -> Split:
    wanted = f"fs_base_s{request.seed}_train"
    subsets = [name for name in folder.names() if re.fullmatch(r"fs_base_s\d+_train", name)]
    if subsets and wanted not in subsets:
        there = ", ".join(re.findall(r"\d+", " ".join(subsets)))
        raise UserError(
            f"seed {request.seed} takes the training subset {wanted}, which is not in {folder.place}; ingest with "
            f"that list too, or take seeds of those there ({there}): --seeds, in a sweep --winner-seeds"
        )
    listed = folder.read(wanted)
    scored = [folder.read("base_val"), folder.read("novel_val")]
    _check_shots(listed, request.config)
    find = Finder(request.data.clips)
    train, notes = usable(find.listed(listed), listed)
    return request.split(
        listed.classes,
        train,
        [ScoredClips(one.name.removesuffix("_val"), find.listed(one), one.classes) for one in scored],
        f"{_lists_of(folder)}, training subset {request.seed}",
        notes=notes,
        lists=[listed, *scored],
        folders=[folder],
    )


def few_shot(request: SplitRequest) -> Split:
    """Train on K videos of every class; score all classes on the first test list, the only one without overlap.

    The published lists of K shots come from training split 1 and overlap the test lists 2 and 3. They are one draw;
    own lists may have one for each seed.
    """
    config = request.config
    folder = request.lists(re.compile(r"train\d+_few_shot_\d+").fullmatch)
    if folder is not None:
        return _listed_few_shot(request, folder)
    train, test, source, notes = own_train_test(request.data.clips, config.test_fraction, config.split_seed)
    classes = _labels_in(train, request.data.classes)
    chosen = few_shots(train, config.shots, request.seed, fewer=config.fewer_shots)
    tests = [ScoredClips("test", _of_classes(test, classes), classes)]
    return request.split(classes, chosen, tests, source, notes=notes)


def _listed_few_shot(request: SplitRequest, folder: ListFolder) -> Split:
    shots = request.config.shots
    own_draw = f"train{request.seed}_few_shot_{shots}"
    draws = [name for name in folder.names() if re.fullmatch(rf"train\d+_few_shot_{shots}", name)]
    if len(draws) > 1 or own_draw in draws:
        return _listed_supervised(request, folder, own_draw)
    if not draws:
        there = sorted({int(name.rpartition("_")[2]) for name in folder.names() if "_few_shot_" in name})
        raise UserError(
            f"no list of {shots} shots in {folder.place} (train1_few_shot_{shots}); set "
            f"protocol.shots to one of {', '.join(map(str, there)) or 'none'}, or ingest with the list"
        )
    one_draw = f"the {shots}-shot list is one draw: seeds change the training alone"
    return _listed_supervised(request, folder, f"train1_few_shot_{shots}", notes=[one_draw])


def supervised(request: SplitRequest) -> Split:
    """Train on all training videos of all classes; score the test list."""
    config = request.config
    accepted = (config.train_list,) if config.train_list else TRAIN_LISTS
    folder = request.lists(lambda name: name in accepted)
    if folder is not None:
        return _listed_supervised(request, folder, _training_list(folder, config))
    train, test, source, notes = own_train_test(request.data.clips, config.test_fraction, config.split_seed)
    classes = _labels_in(train, request.data.classes)
    tests = [ScoredClips("test", _of_classes(test, classes), classes)]
    return request.split(classes, train, tests, source, notes=notes)


def _listed_supervised(request: SplitRequest, folder: ListFolder, name: str, notes: Sequence[str] = ()) -> Split:
    listed = folder.read(name)
    tests = [folder.read(test) for test in request.config.test_lists or lists_to_test(folder)[:1]]
    find = Finder(request.data.clips)
    train, lost = usable(find.listed(listed), listed)
    for test in tests:
        if test.classes != listed.classes:
            raise UserError(f"{test.path} counts other classes ({test.labels_path}) than {listed.path}")
    return request.split(
        listed.classes,
        train,
        [ScoredClips(test.name, find.listed(test), test.classes) for test in tests],
        f"{_lists_of(folder)}: {listed.name}, tested on {', '.join(test.name for test in tests)}",
        notes=[*notes, *lost],
        lists=[listed, *tests],
        folders=[folder],
    )


def zero_shot(request: SplitRequest) -> Split:
    """Score data sets that were not trained on, each list among its own classes.

    With further data sets to test on, all training videos of the data train (as the papers do on Kinetics-400);
    without, nothing trains and the data itself is scored.
    """
    parts = [_zero_shot_tests(request, source) for source in request.tests or (request.data,)]
    tests = [test for part in parts for test in part.tests]
    lists = [one for part in parts for one in part.lists]
    folders = [part.folder for part in parts]
    names = ", ".join(source.name for source in request.tests or (request.data,))
    if not request.tests or request.data is NOTHING:
        return request.split((), (), tests, f"test videos of {names}", lists=lists, folders=folders)
    trained = _zero_shot_training(request)
    return request.split(
        trained.classes,
        trained.clips,
        tests,
        f"{trained.source}, tested on {names}",
        notes=[*trained.notes, *_known_classes(trained.classes, tests)],
        lists=[*lists, *trained.lists],
        folders=[trained.folder, *folders],
    )


@dataclass(frozen=True)
class _Tests:
    """The test sets of one data set, and the lists that they come from."""

    tests: Sequence[ScoredClips]
    lists: Sequence[VideoList] = ()
    folder: ListFolder | None = None


def _zero_shot_tests(request: SplitRequest, source: Source) -> _Tests:
    """Return the test sets of one data set: its test lists, else its test part, else all of its labelled clips."""
    data = "" if source is request.data else source.folder
    chosen = request.config.test_lists
    folder = request.lists(
        lambda name: name in (chosen or TEST_LISTS),
        source=source,
        dataset=source.name if source.name in DATASETS else None,
    )
    if folder is None:
        labelled = part_as_given([clip for clip in source.clips if clip.label], "test")
        classes = _labels_in(labelled, source.classes)
        return _Tests([ScoredClips(f"{source.name}/all", labelled, classes, data)])
    names = chosen or present(folder, lists_to_test(folder))
    if not names:
        raise UserError(
            f"{folder.place} has none of the test lists {', '.join(lists_to_test(folder))} of {source.name}; there "
            f"are {', '.join(folder.names()) or 'none'}: ingest with them, pass --lists DIR, or name some of these "
            "with --set protocol.test_lists=NAME,NAME"
        )
    find = Finder(source.clips)
    lists = [folder.read(name) for name in names]
    tests = [ScoredClips(f"{source.name}/{one.name}", find.listed(one), one.classes, data) for one in lists]
    return _Tests(tests, lists, folder)


@dataclass(frozen=True)
class _Training:
    """The training clips of a data set, and where they come from."""

    classes: tuple[str, ...]
    clips: Sequence[Clip]
    source: str
    notes: Sequence[str] = ()
    lists: Sequence[VideoList] = ()
    folder: ListFolder | None = None


def _zero_shot_training(request: SplitRequest) -> _Training:
    """Return the clips of the training list, else of the training part, else all labelled clips."""
    data = request.data
    folder = request.lists(lambda name: name in TRAIN_LISTS)
    if folder is not None:
        listed = folder.read(_training_list(folder, request.config))
        clips, notes = usable(Finder(data.clips).listed(listed), listed)
        return _Training(listed.classes, clips, f"list {listed.name} of {data.name}", notes, [listed], folder)
    labelled = [clip for clip in data.clips if clip.label]
    clips = [clip for clip in part_as_given(labelled, "train") if clip.ok]
    return _Training(_labels_in(clips, data.classes), clips, f"training videos of {data.name}")


def _known_classes(classes: Sequence[str], tests: Sequence[ScoredClips]) -> list[str]:
    """Return a note for each test set with classes that have the names of training classes."""
    known = {name.casefold() for name in classes}
    shared = [(test, [name for name in test.classes if name.casefold() in known]) for test in tests]
    return [
        f"{len(same)} of the {len(test.classes)} classes of {test.name} are training classes by name"
        for test, same in shared
        if same
    ]


def _training_list(folder: ListFolder, config: ProtocolConfig) -> str:
    name = config.train_list or list_to_train(folder)
    if name is None:
        raise UserError(
            f"no training list ({', '.join(TRAIN_LISTS)}) in {folder.place}; there are "
            f"{', '.join(folder.names()) or 'none'}: ingest with it, pass --lists DIR, or name one of these with "
            "--set protocol.train_list=NAME"
        )
    return name


def _check_shots(listed: VideoList, config: ProtocolConfig) -> None:
    counts = Counter(line.label for line in listed.lines)
    least = min(counts.values())
    most = max(counts.values())
    if most != config.shots or (least != most and not config.fewer_shots):
        found, remedy = f"{most}", f"protocol.shots={most}"
        if least != most:
            found, remedy = f"{least} to {most}", f"{remedy} and protocol.fewer_shots=true"
        raise UserError(f"{listed.path} has {found} videos of a class, protocol.shots is {config.shots}; set {remedy}")


def _lists_of(folder: ListFolder) -> str:
    return f"published lists of {folder.dataset.name}" if folder.dataset else f"lists in {folder.place.resolve().name}"


def _of_classes(clips: Sequence[Clip], classes: Sequence[str]) -> list[Clip]:
    known = set(classes)
    return [clip for clip in clips if clip.label in known]


def _labels_in(clips: Sequence[Clip], classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that any of the clips has."""
    labels = {clip.label for clip in clips}
    return tuple(name for name in classes if name in labels)


_SPLITTERS: dict[str, Callable[[SplitRequest], Split]] = {
    "zero_shot": zero_shot,
    "few_shot": few_shot,
    "b2n": base_to_novel,
    "supervised": supervised,
    "retrieval": retrieval,
}
