"""The flags that ``ingest.py`` and ``check_data.py`` share: which videos there are, and how to decode them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.protocols import PROTOCOLS
from pipelines.videos.folder_reading import LAYOUTS
from pipelines.videos.time_columns import TIMES

if TYPE_CHECKING:
    from pipelines.videos.inputs import Inputs

_WRITTEN_FOLDERS = ("shards", "lists", ".parts")
"""Folders that an ingest, or a check, makes anew in its output folder."""


def _layouts() -> str:
    ways = "; ".join(f"{name}: {what}" for name, what in LAYOUTS.items())
    return f"{ways} (default: what fits; two readings that fit are refused)"


def _times() -> str:
    ways = "; ".join(f"{name}: {what}" for name, what in TIMES.items())
    return f"{ways} (default: what their names or cells say; whole numbers that may be either are refused)"


def add_input_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the videos, which :func:`inputs_from` reads, and ``--workers`` and ``--timeout``."""
    with_lists = [name for name, protocol in PROTOCOLS.items() if protocol.reads_lists]
    add = parser.add_argument
    add(
        "--videos",
        nargs="+",
        default=[],
        metavar="DIR|URI|LIST",
        help="a folder, a CSV, or lists of 'path label' lines",
    )
    add("--labels", nargs="+", default=[], metavar="CSV", help="label files (id,name): one, or one for each list")
    add("--dataset", metavar="NAME", help="published data set: hmdb51, ucf101, ssv2, k400 or k600; with --lists")
    add("--lists", metavar="DIR", help="a published repository, or a folder of lists with their label files")
    add("--protocol", choices=with_lists, help="take only the lists that it needs (default: all that are there)")
    add("--root", metavar="DIR|URI", help="where videos of lists are (default: the lists' folder, or its videos/)")
    add("--layout", choices=tuple(LAYOUTS), metavar="HOW", help=f"how to read what --videos names: {_layouts()}")
    add("--times", choices=tuple(TIMES), metavar="HOW", help=f"columns of start and end in lists: {_times()}")
    add("--fps", type=float, default=0, metavar="F", help="frames per second of folders of numbered pictures")
    add("--workers", type=int, metavar="N", help="decoding processes (default: one for each CPU)")
    add("--timeout", type=float, default=60, metavar="S", help="seconds for one video (default: 60)")


def inputs_from(args: argparse.Namespace, exclude: Path | None = None, *, scan: bool = False) -> Inputs:
    """Find the videos that the flags of :func:`add_input_flags` name.

    Raises:
        UserError: flags that contradict each other or are out of range, and as ``pipelines.videos.inputs``.
    """
    from pipelines.videos.inputs import find_inputs, find_listed  # pyarrow: late
    from pipelines.videos.list_choice import wanted_lists
    from pipelines.videos.list_folder import ListFolder
    from vlmodels.errors import UserError

    local_only(args, "lists", "labels")
    for name in ("workers", "timeout"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name} {value:g}: it must be more than 0")
    if not 0 <= args.fps < 1000:
        raise UserError(f"--fps {args.fps:g}: it must be between 0 and 1000")
    how: dict[str, Any] = {"scan": scan, "layout": args.layout, "times": args.times, "fps": args.fps}
    if bool(args.videos) == bool(args.lists):
        raise UserError("say either --videos (a folder, lists or a CSV) or --lists (a folder of lists), not both")
    if args.videos:
        if args.dataset or args.protocol:
            raise UserError("--dataset and --protocol choose among the lists of a folder: --lists DIR")
        if exclude is not None and len(args.videos) == 1:
            _refuse_among_videos(exclude, args.videos[0])
        return find_inputs(args.videos, args.labels, args.root, exclude, **how)
    if args.labels:
        raise UserError("--labels goes with --videos; the lists of --lists have their label files in the same folder")
    folder = ListFolder.open(args.lists, args.dataset)
    stems, _ = wanted_lists(folder, args.protocol)
    return find_listed(folder, stems, args.root, **how)


def _refuse_among_videos(out: Path, videos: str) -> None:
    """Refuse an output folder that has videos to ingest in it, or would put its files among them."""
    from pipelines.storage.place import is_uri
    from pipelines.videos.file_tree import read_tree
    from vlmodels.errors import UserError
    from vlmodels.paths import absolute, is_folder

    if is_uri(videos) or not is_folder(videos):
        return
    place, root = absolute(out), absolute(videos)
    if place == root:
        problem = "is the videos' own folder"
    elif root in place.parents and is_folder(place) and read_tree(place).videos:
        problem = f"lies in the videos' folder {videos} and holds videos itself"
    elif place in root.parents and root.relative_to(place).parts[0] in _WRITTEN_FOLDERS:
        problem = f"would write into the videos' folder {videos}"
    else:
        return
    raise UserError(f"--out {out} {problem}; choose another folder")


def local_only(args: argparse.Namespace, *names: str) -> None:
    """Refuse URIs as values of the flags ``names``, whose files are only read or written on this machine.

    Raises:
        UserError: naming the flag and the remedy.
    """
    from pipelines.storage.place import is_uri, without_secrets
    from vlmodels.errors import UserError

    for name in names:
        given = getattr(args, name, None) or ()
        for where in [given] if isinstance(given, str) else given:
            if is_uri(where):
                remedy = "name a folder here" if name == "out" else "copy it to this machine first, and name the copy"
                raise UserError(f"--{name} {without_secrets(where)}: it has to be a local path; {remedy}")
