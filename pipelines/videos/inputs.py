"""The videos to ingest: those of a folder, or those that lists name, with their classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.storage.place import is_uri
from pipelines.videos.catalog import part_of
from pipelines.videos.file_tree import FileTree, read_tree
from pipelines.videos.folder_reading import FOLDER_LAYOUTS, Layout
from pipelines.videos.label_check import Labelled, check_labels
from pipelines.videos.list_files import is_table, list_stem, read_labels, read_list, read_videos, unused_columns
from pipelines.videos.list_folder import ListFolder, VideoList
from pipelines.videos.listed_parts import FoundPart, ListedPart, check_groups, find_part, part_notes
from pipelines.videos.locate import Locator, is_windows_path, known_folders, loosely
from pipelines.videos.remote import StoredVideos
from pipelines.videos.split_names import PART_NAMES, split_of_folder
from pipelines.videos.text_file import read_text
from pipelines.videos.time_columns import WHOLE, Times
from pipelines.videos.understanding import Understanding, count, understand_folder, understand_lists
from pipelines.videos.uris import clip_id, group_of, uri_of
from pipelines.videos.video_files import VIDEO_SUFFIXES
from vlmodels.errors import UserError, nearest
from vlmodels.paths import is_folder, is_there
from vlmodels.span import Span, split_name

_SPLITS = tuple(name for names in PART_NAMES.values() for name in names)


@dataclass(frozen=True, slots=True)
class Input:
    """A video to ingest.

    Attributes:
        uri: its name in the list or folder.
        path: its path below the root, "" if it was not found.
        label: class name, "" if unlabelled.
        split: lists or split folders that hold it, joined by "|".
        source: the video that it was cut from, if the list has a column for it.
        reason: why it was not found, or cannot be cut.
        span: the part of the file; None for all of it.
        fps: frames per second of a frame folder, if the user says them; else 0.
    """

    uri: str
    path: str
    label: str
    split: str
    source: str = ""
    reason: str = ""
    span: Span | None = None
    fps: float = 0.0

    @property
    def clip_id(self) -> str:
        """The name of the clip in manifest and shards."""
        return clip_id(self.uri)

    @property
    def group(self) -> str:
        """The source video of the clip, as listed or by the names that data sets use."""
        return self.source or group_of(split_name(self.uri)[0])


@dataclass(frozen=True, slots=True)
class Inputs:
    """All videos, sorted by uri.

    Attributes:
        root: the folder that their paths are relative to, "." if they lie in a store.
        classes: class names in label order.
        videos: one for each uri.
        lists: the lists that name them, if these have label files.
        dataset: the published data set that the lists belong to.
        files: every video below the root, if the tree was scanned.
        store: the folder of a store that holds them, if they are not on this machine.
        understanding: how the folder or the lists were read.
        times: how the user wants columns of times to be read.
    """

    root: Path
    classes: tuple[str, ...]
    videos: tuple[Input, ...]
    lists: tuple[VideoList, ...] = ()
    dataset: str | None = None
    files: frozenset[str] = frozenset()
    store: StoredVideos | None = None
    understanding: Understanding | None = None
    times: Times | None = None

    @property
    def place(self) -> str:
        """The path or URI that the videos' paths are relative to."""
        return self.store.uri if self.store else str(self.root)


def find_inputs(
    videos: Sequence[str | Path],
    labels: Sequence[str | Path] = (),
    root: str | Path | None = None,
    exclude: Path | None = None,
    *,
    scan: bool = False,
    layout: Layout | None = None,
    times: Times | None = None,
    fps: float = 0.0,
) -> Inputs:
    """Read a folder of videos, one or more lists, or own data in CSV or JSON that name classes.

    What a folder means is decided by ``pipelines.videos.understanding``.

    Args:
        videos: a folder or its URI, or lists.
        labels: label CSVs, one for everything or one for each list; own data with class names needs none.
        root: folder or URI of the listed videos (default: the folder of the lists, or its ``videos/``).
        exclude: a folder to leave out.
        scan: list all files below the root, too.
        layout: how to read a folder; None to find out. For lists, "list" takes labels that folder names contradict.
        times: how to read columns of times; None to find out.
        fps: frames per second of frame folders, where no list says them.

    Raises:
        UserError: naming what is wrong and the remedy.
    """
    stores = [str(path) for path in videos if is_uri(path)]
    paths = [Path(path) for path in videos]
    for path in [] if stores else paths:
        if not is_there(path):
            raise UserError(f"{path}: no such folder or list of videos")
    folders = [path for path in paths if is_folder(path)]
    if folders or stores:
        if len(paths) > 1:
            raise UserError("--videos takes one folder, or one or more lists")
        if root is not None:
            raise UserError("--root says where the videos of lists are; a folder needs none")
        label_files = [read_labels(path) for path in labels]
        if stores:
            return _find_in_store(stores[0], label_files, layout)
        return _with_fps(_find_in_folder(folders[0], label_files, exclude, layout), fps)
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise UserError(f"{path} is a video; --videos takes its folder, or a list of 'path label' lines")
    how = _How(scan, layout, times)
    if not labels and all(is_table(path) for path in paths):
        return _with_fps(_find_own(paths, root, how), fps)
    return _with_fps(_find_labelled(paths, labels, root, how), fps)


def find_listed(
    folder: ListFolder,
    stems: Sequence[str],
    root: str | Path | None,
    *,
    scan: bool = False,
    layout: Layout | None = None,
    times: Times | None = None,
    fps: float = 0.0,
) -> Inputs:
    """Read the lists ``stems`` of a folder, with the label files that belong to them; else as :func:`find_inputs`."""
    lists = [folder.read(stem, times) for stem in stems]
    how = _How(scan, layout, folder.times(times))
    found = _with_fps(_find_videos(lists, _root_of([folder.place], root), how), fps)
    return replace(found, lists=tuple(lists), dataset=folder.dataset.name if folder.dataset else None)


@dataclass(frozen=True, slots=True)
class _How:
    """How lists are read (see ``find_inputs``); ``in_order`` sorts the classes by name."""

    scan: bool
    layout: Layout | None
    times: Times | None
    in_order: bool = False


def _with_fps(inputs: Inputs, fps: float) -> Inputs:
    if not fps:
        return inputs
    return replace(inputs, videos=tuple(replace(video, fps=video.fps or fps) for video in inputs.videos))


# --------------------------------------------------------------------------------------------------- folders


def _find_in_store(where: str, label_files: list[list[str]], layout: Layout | None) -> Inputs:
    if is_table(Path(where)) or where.endswith(".txt"):
        raise UserError(f"{where}: copy the list to this machine; --root URI says where its videos are")
    store = StoredVideos.below(where)
    return replace(_in_folders(store.uri, store.tree(), label_files, layout), store=store)


def _find_in_folder(root: Path, label_files: list[list[str]], exclude: Path | None, layout: Layout | None) -> Inputs:
    return replace(_in_folders(str(root), read_tree(root, exclude), label_files, layout), root=root.resolve())


def _in_folders(root: str, tree: FileTree, label_files: list[list[str]], layout: Layout | None) -> Inputs:
    """Return the videos of a tree, with the classes and splits of their folders."""
    classes = _union(label_files) if label_files else None
    found = understand_folder(tree, root, classes, layout)
    names = {meaning.label for meaning in found.meanings.values()} - {""}
    to_class = _match_folders(names, classes) if classes is not None else {name: name for name in names}
    videos = []
    for uri, reason in (*((uri, "") for uri in tree.videos), *tree.damaged):
        label, split = found.meanings[uri.rpartition("/")[0]]
        videos.append(Input(uri, "" if reason else uri, to_class.get(label, ""), split, reason=reason))
    if tree.damaged:
        videos.sort(key=lambda video: video.uri)
    return Inputs(Path(), found.classes, tuple(videos), understanding=found)


def _match_folders(folders: set[str], classes: Sequence[str]) -> dict[str, str]:
    """Map class folders to class names: exactly, else without regard to case and underscores."""
    exact, loose = set(classes), {loosely(name): name for name in classes}
    matched = {name: name if name in exact else loose.get(loosely(name)) for name in folders}
    unknown = sorted(name for name, found in matched.items() if found is None)
    if unknown:
        listed = ", ".join(f"'{name}'{nearest(name, classes)}" for name in unknown[:20])
        more = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
        raise UserError(
            f"class folders that the label file does not name: {listed}{more}; rename them or correct --labels"
        )
    return {name: found for name, found in matched.items() if found is not None}


# ----------------------------------------------------------------------------------------------------- lists


def _find_labelled(paths: Sequence[Path], labels: Sequence[str | Path], root: str | Path | None, how: _How) -> Inputs:
    """Read lists whose labels are numbers that label files explain."""
    if not labels:
        read_text(paths[0])  # says what it is if it is no text
        raise UserError(f"{paths[0]}: the labels of a list are numbers; --labels CSV says which classes they are")
    if len(labels) not in {1, len(paths)}:
        raise UserError(f"{len(labels)} label files for {len(paths)} lists; give one, or one for each list")
    files = [Path(path) for path in labels] * (len(paths) if len(labels) == 1 else 1)
    lists = [_read(path, names, how.times) for path, names in zip(paths, files, strict=True)]
    twice = [one.name for i, one in enumerate(lists) if one.name in {other.name for other in lists[:i]}]
    if twice:
        raise UserError(f"two lists are called {twice[0]}; rename one, because their names tell them apart")
    found = _find_videos(lists, _root_of([path.resolve().parent for path in paths], root), how)
    return replace(found, lists=tuple(lists))


def _read(path: Path, labels: Path, times: Times | None) -> VideoList:
    classes = read_labels(labels)
    lines = read_list(path, classes=classes, times=times)
    return VideoList(list_stem(path), path, labels, tuple(classes), tuple(lines))


def _find_own(paths: Sequence[Path], root: str | Path | None, how: _How) -> Inputs:
    """Read CSV or JSON files that label videos by class name."""
    lists = []
    for path in paths:
        classes, lines = read_videos(path, how.times)
        name = list_stem(path) if len(paths) > 1 else ""
        lists.append(VideoList(name, path, path, tuple(classes), tuple(lines)))
    for line in (line for one in lists for line in one.lines):
        if line.split and split_of_folder(line.split) is None:
            raise UserError(f"{line.where}: split '{line.split}'{nearest(line.split, _SPLITS)}; use train, val or test")
    return _find_videos(lists, _root_of([path.resolve().parent for path in paths], root), replace(how, in_order=True))


def _root_of(folders: Sequence[Path], root: str | Path | None) -> Path | StoredVideos:
    """Return the root of the listed videos: ``root``, else the folder of the lists."""
    if root is None:
        places = {folder.resolve() for folder in folders}
        if len(places) > 1:
            raise UserError("the lists lie in different folders; --root DIR says where the videos are")
        return places.pop()
    if is_uri(root):
        return StoredVideos.below(str(root))
    if not is_folder(root):
        raise UserError(f"--root {root}: no such folder")
    return Path(root).resolve()


def _find_videos(lists: Sequence[VideoList], root: Path | StoredVideos, how: _How) -> Inputs:
    """Join the videos of lists, by uri, and find them below ``root``."""
    if how.layout in FOLDER_LAYOUTS:
        raise UserError(f"--layout {how.layout} says how to read a folder; for lists there is --layout list")
    videos, parts = _joined(lists)
    whole_first = sorted(lists, key=lambda one: bool(part_of(one.name)))
    classes = _union([one.classes for one in whole_first])
    locate = Locator(root, known_folders((parts[uri].file if uri in parts else uri for uri in videos), classes))
    if how.scan:
        locate.scan()
    found = []
    places: dict[str, FoundPart] = {}
    folder = root if isinstance(root, Path) else None
    for uri, video in sorted(videos.items()):
        if uri in parts:
            place = places[uri] = find_part(parts[uri], video.label, locate, folder)
            found.append(replace(video, path=place.path, reason=place.reason, span=place.span))
        else:
            path, reason = locate(uri, video.label)  # ``replace`` would take longer than all else here
            found.append(Input(uri, path, video.label, video.split, video.source, reason, None, video.fps))
    if not any(video.path for video in found):
        windows = ", a path with a drive or server of Windows" if is_windows_path(found[0].uri) else ""
        raise UserError(
            f"none of the {len(found)} listed videos is below {root} (for instance {found[0].uri}{windows}); set --root"
        )
    notes = [*_repeats(lists), *_windows_notes(found, str(root)), *_label_notes(found, classes, how.layout)]
    notes += part_notes([(parts[uri], place) for uri, place in places.items()])
    unused = {one.name: unused_columns(one.path, how.times) for one in lists}
    shown = sorted(classes) if how.in_order else classes
    said = understand_lists(str(root), shown, (video.split for video in found), unused, notes)
    inputs = Inputs(Path(), tuple(shown), tuple(found), files=locate.files, understanding=said, times=how.times)
    return replace(inputs, root=root) if isinstance(root, Path) else replace(inputs, store=root)


def _repeats(lists: Sequence[VideoList]) -> list[str]:
    repeated = sum(len(one.lines) - len({line.name for line in one.lines}) for one in lists)
    return [f"{count(repeated, 'line')} with a video that the same list names before"] if repeated else []


def _windows_notes(videos: Sequence[Input], root: str) -> list[str]:
    """Return how many paths begin with a drive or a server of Windows."""
    listed = [video for video in videos if is_windows_path(video.uri)]
    if not listed:
        return []
    there = sum(bool(video.path) for video in listed)
    what = f"{count(len(listed), 'path')} with a drive or server of Windows ({listed[0].uri})"
    return [f"{what}: {there} found by their names below {root}"]


def _label_notes(videos: Sequence[Input], classes: Sequence[str], layout: Layout | None) -> list[str]:
    if layout == "list":
        return []
    labels: dict[str, set[str]] = defaultdict(set)
    for video in videos:
        if video.span is not None:  # the parts of a video may be of other classes than its folder
            labels[video.path].add(video.label)
    said = (video for video in videos if video.label and (video.span is None or len(labels[video.path]) == 1))
    return check_labels((Labelled(video.path or video.uri, video.label) for video in said), classes)


def _joined(lists: Sequence[VideoList]) -> tuple[dict[str, Input], dict[str, ListedPart]]:
    """Return the videos of all lists by uri, each with all the splits that name it and no path yet.

    Those of which the list names a part, or the number of frames, have a second entry that says so.
    """
    videos: dict[str, Input] = {}
    parts: dict[str, ListedPart] = {}
    first_seen: dict[str, str] = {}
    for one in lists:
        default_split = "" if any(line.split for line in one.lines) else one.name
        for line in one.lines:
            label, file = one.classes[line.label], uri_of(line.path)
            uri = file if line.cut is WHOLE else line.cut.after(file)
            split = line.split.lower() or default_split
            known = videos.get(uri)
            if known is None:
                videos[uri] = Input(uri, "", label, split, line.group, "", None, line.fps)
                first_seen[uri] = line.where
                if line.cut is not WHOLE or line.n_frames:
                    parts[uri] = ListedPart(file, line.cut, line.n_frames)
            elif known.label != label:
                raise UserError(
                    f"{line.where}: {uri} is '{label}' here but '{known.label}' in {first_seen[uri]}; "
                    "has each list its own label file (--labels, in the order of the lists)?"
                )
            elif split not in known.split.split("|"):
                videos[uri] = replace(known, split="|".join(filter(None, (known.split, split))))
    check_groups([(part.file, videos[uri].source) for uri, part in parts.items()])
    return videos, parts


def _union(label_files: Iterable[Sequence[str]]) -> list[str]:
    """Join class lists by name, in order of first appearance."""
    return list(dict.fromkeys(name for names in label_files for name in names))
