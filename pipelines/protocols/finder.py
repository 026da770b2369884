"""Find the ingested clips that split lists name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pipelines.protocols.split import Clip
from pipelines.videos.label_check import Labelled, check_labels
from pipelines.videos.list_folder import VideoList
from pipelines.videos.locate import known_folders, may_be
from pipelines.videos.uris import uri_of
from vlmodels.errors import UserError
from vlmodels.span import split_name


class Finder:
    """Finds listed videos among the ingested clips: by path, else by a file name or stem that is unique.

    Where folders name another class or part of the data than the list, they decide (``pipelines/videos/locate.py``).
    """

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._by_uri = {clip.uri: clip for clip in clips}
        self._labels = {clip.label for clip in clips} - {""}
        names: dict[str, list[Clip]] = defaultdict(list)
        for clip in clips:
            for key in _keys(clip.uri.rsplit("/", 1)[-1]):
                names[key].append(clip)
        self._by_name = {name: found[0] for name, found in names.items() if len(found) == 1}

    def __call__(self, path: str, label: str = "", known: frozenset[str] = frozenset()) -> Clip | None:
        """Return the clip that ``path`` names, or None; ``label`` and ``known`` folders as in ``locate.may_be``."""
        if path in self._by_uri or (path := uri_of(path)) in self._by_uri:
            return self._by_uri[path]
        found = (self._by_name.get(key) for key in _keys(path.rsplit("/", 1)[-1]))
        clip = next((clip for clip in found if clip is not None), None)
        return clip if clip is not None and may_be(path, clip.uri, known, label) else None

    def listed(self, videos: VideoList) -> list[Clip]:
        """Return the clips of a list, each with the label that the list gives it.

        Raises:
            UserError: videos that were never ingested, or many that were ingested as another class of the list.
        """
        known = known_folders((line.path for line in videos.lines), [*videos.classes, *self._labels])
        clips: list[Clip] = []
        as_ingested = True
        absent: list[str] = []
        for line in videos.lines:
            label = videos.classes[line.label]
            clip = self(line.name, label, known)
            if clip is None:
                absent.append(line.name)
            else:
                as_ingested = as_ingested and clip.label == label
                clips.append(replace(clip, label=label))
        if absent:
            raise UserError(
                f"{videos.path.name}: {len(absent)} of {len(videos.lines)} listed videos were never ingested "
                f"(first: {absent[0]}); run pipelines/ingest.py with this list too"
            )
        if not as_ingested:
            self._check(videos, clips)
        return clips

    def _check(self, videos: VideoList, listed: Sequence[Clip]) -> None:
        """Compare the classes of a list with those that the clips were ingested with."""
        ingested = (self._by_uri[clip.uri].label for clip in listed)
        folders = (f"{label}/{clip.uri.rsplit('/', 1)[-1]}" for label, clip in zip(ingested, listed, strict=True))
        labelled = (Labelled(folder, clip.label) for folder, clip in zip(folders, listed, strict=True))
        check_labels(labelled, videos.classes, "ingest with these lists if the folders' names are wrong")


def _keys(name: str) -> tuple[str, ...]:
    """Return a file's name, and without its suffix; behind both, the part of the video that it names."""
    file, span = split_name(name)
    stem = file.rpartition(".")[0]
    if not stem:
        return (name,)
    return (name, stem if span is None else span.after(stem))


def usable(listed: Sequence[Clip], videos: VideoList) -> tuple[list[Clip], list[str]]:
    """Return the listed training videos that can be decoded, and a note on how many cannot."""
    good = [clip for clip in listed if clip.ok]
    lost = len(listed) - len(good)
    if not lost:
        return good, []
    return good, [f"{lost} of {len(listed)} training videos of {videos.name} cannot be decoded"]
