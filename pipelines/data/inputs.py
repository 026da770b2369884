"""What there is to ingest: the videos of a folder, or those that published lists name, with their classes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pipelines.data.manifest import clip_id, group_of, read_labels, read_list
from vlmodels.errors import UserError, nearest

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "asf", "avi", "flv", "gif", "m2ts", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
)
SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass(frozen=True, slots=True)
class Input:
    """A video to ingest; ``path`` is where it is below the root, "" if it is nowhere."""

    uri: str
    path: str
    label: str
    split: str

    @property
    def clip_id(self) -> str:
        """Name of the clip in manifest and shards."""
        return clip_id(self.uri)

    @property
    def group(self) -> str:
        """Source video of the clip."""
        return group_of(self.uri)


@dataclass(frozen=True, slots=True)
class Inputs:
    """All videos, sorted by uri; the folder that they are relative to; class names in label order."""

    root: Path
    classes: tuple[str, ...]
    videos: tuple[Input, ...]


def find_inputs(
    videos: Sequence[str | Path],
    labels: Sequence[str | Path] = (),
    root: str | Path | None = None,
    exclude: Path | None = None,
) -> Inputs:
    """Read a folder of videos, or one or more published lists.

    A folder holds class folders, split folders (train, val, test) of class folders, or just videos.
    ``labels`` are label CSVs: one for everything, or one for each list. ``root`` is where the videos of lists
    are (default: the folder of the lists, or its ``videos/``). Nothing below ``exclude`` is looked at.

    Raises:
        UserError: naming what is wrong and how to mend it.
    """
    paths = [Path(path) for path in videos]
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such folder or list of videos")
    folders = [path for path in paths if path.is_dir()]
    if folders:
        if len(paths) > 1:
            raise UserError("--videos takes one folder, or one or more lists")
        if root is not None:
            raise UserError("--root says where the videos of lists are; a folder needs none")
        return _folder(folders[0], [read_labels(path) for path in labels], exclude)
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise UserError(f"{path} is a video; --videos takes its folder, or a list of 'path label' lines")
    if not labels:
        raise UserError(f"{paths[0]}: the labels of a list are numbers; --labels CSV says which classes they are")
    if len(labels) not in {1, len(paths)}:
        raise UserError(f"{len(labels)} label files for {len(paths)} lists; give one, or one for each list")
    names = [read_labels(path) for path in labels]
    return _lists(paths, names * len(paths) if len(names) == 1 else names, root)


# --------------------------------------------------------------------------------------------------- folders


def _folder(root: Path, label_files: list[list[str]], exclude: Path | None) -> Inputs:
    found = sorted(_videos_below(root, exclude))
    if not found:
        raise UserError(
            f"{root}: no videos here or in its folders (looked for {' '.join(sorted(VIDEO_SUFFIXES))}); "
            "expected ROOT/CLASS/video.mp4, ROOT/train/CLASS/video.mp4, or ROOT/video.mp4"
        )
    tops = {uri.split("/", 1)[0] for uri in found if "/" in uri}
    has_splits = bool(tops) and all(top.lower() in SPLIT_FOLDERS for top in tops)
    videos = []
    for uri in found:
        *folders, _ = uri.split("/")
        split = folders.pop(0) if has_splits and folders else ""
        videos.append(Input(uri, uri, folders[0] if folders else "", split))
    if label_files:
        classes = _union(label_files)
        to_class = _match_folders({video.label for video in videos} - {""}, classes)
        videos = [replace(video, label=to_class.get(video.label, "")) for video in videos]
    else:
        classes = sorted({video.label for video in videos} - {""})
    return Inputs(root.resolve(), tuple(classes), tuple(videos))


def _videos_below(root: Path, exclude: Path | None) -> Iterator[str]:
    """Yield posix paths of videos below ``root``; follows links (data sets are often linked), but not in circles."""
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or (exclude is not None and Path(real) == exclude.resolve()):
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES:
                yield _portable(Path(folder, name).relative_to(root).as_posix())


def _portable(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        raise UserError(f"the file name {shown} is not valid UTF-8; rename it") from error
    return name


def _match_folders(folders: set[str], classes: Sequence[str]) -> dict[str, str]:
    """Map class folders to class names: exactly, else without regard to case and underscores."""
    exact, loose = set(classes), {_loosely(name): name for name in classes}
    matched = {name: name if name in exact else loose.get(_loosely(name)) for name in folders}
    unknown = sorted(name for name, found in matched.items() if found is None)
    if unknown:
        listed = ", ".join(f"'{name}'{nearest(name, classes)}" for name in unknown[:20])
        more = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
        raise UserError(
            f"class folders that the label file does not name: {listed}{more}; rename them or mend --labels"
        )
    return {name: found for name, found in matched.items() if found is not None}


def _loosely(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


# ----------------------------------------------------------------------------------------------------- lists


def _lists(paths: Sequence[Path], names: Sequence[list[str]], root: str | Path | None) -> Inputs:
    if root is None:
        parents = {path.resolve().parent for path in paths}
        if len(parents) > 1:
            raise UserError("the lists lie in different folders; --root DIR says where the videos are")
        root = parents.pop()
    elif not Path(root).is_dir():
        raise UserError(f"--root {root}: no such folder")
    locate = _Locator(Path(root).resolve())
    videos: dict[str, Input] = {}
    first_seen: dict[str, str] = {}
    for path, classes in zip(paths, names, strict=True):
        split = path.name.removesuffix(".gz").rsplit(".", 1)[0]
        for line in read_list(path, len(classes)):
            label = classes[line.label]
            uri = PurePosixPath(line.path).as_posix()
            known = videos.get(uri)
            if known is None:
                videos[uri] = Input(uri, locate(uri), label, split)
                first_seen[uri] = line.where
            elif known.label != label:
                raise UserError(
                    f"{line.where}: {uri} is '{label}' here but '{known.label}' in {first_seen[uri]}; "
                    "has each list its own label file (--labels, in the order of the lists)?"
                )
            elif split not in known.split.split("|"):
                videos[uri] = replace(known, split=f"{known.split}|{split}")
    if not any(video.path for video in videos.values()):
        example = next(iter(videos))
        raise UserError(f"none of the {len(videos)} listed videos is below {root} (for instance {example}); set --root")
    return Inputs(locate.root, tuple(_union(names)), tuple(videos[uri] for uri in sorted(videos)))


class _Locator:
    """Finds listed videos: as written, in ``videos/``, else by file name (then stem) anywhere below the root.

    Releases differ in class folders (UCF-101 lists name none, the archive has them), in ``train/`` prefixes
    and in suffixes (webm, mp4); a name that occurs more than once below the root is nobody's.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[str]] | None = None

    def __call__(self, uri: str) -> str:
        for candidate in (uri, f"videos/{uri}"):
            if (self.root / candidate).is_file():
                return candidate
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for path in _videos_below(self.root, None):
                pure = PurePosixPath(path)
                self._by_name[pure.name].append(path)
                self._by_name[f"{pure.stem}.*"].append(path)
        name = PurePosixPath(uri)
        for key in (name.name, f"{name.stem}.*"):
            matches = self._by_name.get(key, [])
            if len(matches) == 1:
                return matches[0]
        return ""


def _union(label_files: Iterable[Sequence[str]]) -> list[str]:
    """Join class lists by name, in order of first appearance."""
    return list(dict.fromkeys(name for names in label_files for name in names))
