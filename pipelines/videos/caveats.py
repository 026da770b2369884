"""Caveats of a data set: what a user must know before a score on it means anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipelines.videos.catalog import DATASETS, part_of
from pipelines.videos.inputs import Inputs
from pipelines.videos.list_choice import wanted_lists
from pipelines.videos.list_files import read_labels
from pipelines.videos.list_folder import ListFolder


def find_caveats(inputs: Inputs, folder: ListFolder | None = None, protocol: str | None = None) -> list[str]:
    """Return one sentence for each unusual property of these lists."""
    found = [*leaks(inputs), *shared_names(inputs)]
    if folder is not None:
        found += folder.name_caveats(inputs.classes)
        _, absent = wanted_lists(folder, protocol)
        if absent:
            found.append(f"lists that are not here: {', '.join(absent)}")
        counts = folder.dataset.counts if folder.dataset else {}
        found += [
            f"{one.path} has {len(one.lines)} videos, the published list {counts[one.name]}"
            for one in inputs.lists
            if counts.get(one.name, len(one.lines)) != len(one.lines)
        ]
    return found


def leaks(inputs: Inputs) -> list[str]:
    """Return which test lists share videos with the training lists used with them; for own data, also sources."""
    videos: dict[str, set[str]] = defaultdict(set)
    sources: dict[str, set[str]] = defaultdict(set)
    for video in inputs.videos:
        for name in video.split.split("|"):
            videos[name].add(video.span.after(video.path) if video.span else video.path or video.uri)
            sources[name].add(video.group)
    trains = [name for name in videos if "train" in name.lower()]
    tests = [name for name in videos if name not in trains and any(word in name.lower() for word in ("val", "test"))]
    found = []
    for test in sorted(tests):
        comparable = [train for train in sorted(trains) if bool(part_of(train)) == bool(part_of(test))]
        clips = {train: len(videos[train] & videos[test]) for train in comparable}
        if any(clips.values()):
            found.append(
                f"leak: {test} shares videos: {_listed(clips)}; what trained on these must not be scored on it"
            )
        groups = {train: len(sources[train] & sources[test]) for train in comparable if not clips[train]}
        if inputs.dataset is None and any(groups.values()):
            found.append(f"leak: {test} shares source videos (groups): {_listed(groups)}; their clips look alike")
    return found


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} with {name}" for name, count in counts.items() if count)


def shared_names(inputs: Inputs) -> list[str]:
    """Return how many classes have names of Kinetics-400's, if its label file is in the folder of the lists' ones."""
    if inputs.dataset in {None, "k400"}:
        return []
    k400_labels = {one.labels_path.parent / DATASETS["k400"].labels for one in inputs.lists}
    for path in sorted(k400_labels):
        if path.is_file():
            same = equal_names(inputs.classes, read_labels(path))
            if same:
                shown = ", ".join(same[:3]) + (", ..." if len(same) > 3 else "")
                return [
                    f"{len(same)} of the {len(inputs.classes)} classes are classes of Kinetics-400 by name ({shown}): "
                    "zero-shot from there means another data set, not unseen classes"
                ]
    return []


def equal_names(classes: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the classes that ``others`` have too, whatever the case, spaces and punctuation."""
    known = {_letters(name) for name in others}
    return [name for name in classes if _letters(name) in known]


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
