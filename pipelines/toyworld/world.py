"""Writes the toy world to disk as real video files with lists and label files in the published format.

``ROOT/toy-ucf`` and ``ROOT/toy-ssv2`` each get ``videos/*.mp4``, ``{,base_,novel_}labels.csv``,
``fs_base_s{1,2,3}_train.txt``, ``base_val.txt``, ``novel_val.txt``, ``captions.json`` and, once all is there, a
finished ``world.json``. Every file is the same whenever and by however many workers it is made.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.toyworld import clips, draw, pairs, words
from pipelines.toyworld.clips import ToyClass, toy_classes
from pipelines.videos.captions import write_captions
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


FPS = 8
SHOTS = 16  # training clips of a class in each few-shot list, as in the published lists
DRAWS = (1, 2, 3)


class ToyClip(NamedTuple):
    """A clip to draw: its class, the key of its random numbers, and its file."""

    toy_class: ToyClass
    key: str
    path: Path


def write_clip(clip: ToyClip) -> None:
    """Draw a clip and write its file."""
    write_video(clips.draw_clip(clip.toy_class, clip.key), clip.path)


def write_clips(wanted: Sequence[ToyClip], workers: int) -> None:
    """Draw and write many clips, in ``workers`` processes if there are enough of them."""
    if workers <= 1 or len(wanted) < 50:
        for clip in wanted:
            write_clip(clip)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_one_thread) as pool:
        for _ in pool.map(write_clip, wanted, chunksize=20):
            pass


def make_world(
    root: Path,
    name: str,
    *,
    train_per_class: int = 24,
    test_per_class: int = 20,
    shots: int = SHOTS,
    workers: int = 2,
    seed: int = 0,
    write: Callable[[Sequence[ToyClip], int], None] = write_clips,
) -> Path:
    """Make the data set ``name`` under ``root`` and return its folder; what is there and current is kept.

    Only base classes have training clips; each few-shot list draws ``shots`` of them a class. Clips of other settings,
    or of another version of the drawing code, are drawn again. ``write`` gets the missing clips and ``workers``.

    Raises:
        UserError: no such data set, too few training clips for the shots, or a folder that cannot be written.
    """
    classes = toy_classes(name)
    if train_per_class < shots:
        raise UserError(f"train_per_class={train_per_class} is less than the {shots} shots of the training lists")
    folder = root / name
    settings = {"name": name, "train_per_class": train_per_class, "test_per_class": test_per_class, "seed": seed}
    mark = {"format": 1, **settings, "digest": _digest(settings)}
    try:
        finished = _read_mark(folder)
        if finished == {**mark, "complete": True}:
            return folder
        videos = folder / "videos"
        videos.mkdir(parents=True, exist_ok=True)
        if finished.get("digest") != mark["digest"]:
            for stale in videos.glob("c??_???.mp4"):
                stale.unlink()
            _write_json(folder / "world.json", {**mark, "complete": False})
        wanted = [
            ToyClip(toy_class, f"{seed}/{number}", videos / _file_name(label, number))
            for label, toy_class in enumerate(classes)
            for number in _numbers(toy_class, train_per_class, test_per_class)
        ]
        write([clip for clip in wanted if not clip.path.exists()], workers)
        for file_name, text in _lists(classes, train_per_class, test_per_class, shots, seed).items():
            _write_text(folder / file_name, text)
        write_captions(folder / "captions.json", _captions(classes, train_per_class, test_per_class, seed))
        _write_json(folder / "world.json", {**mark, "complete": True})
    except OSError as error:
        raise UserError(f"cannot write the toy world to {folder}: {error.strerror}; give another folder") from error
    return folder


def toy_descriptions(name: str) -> dict[str, dict[str, list[str]]]:
    """Return descriptions of the classes as published files: file name to content (label to two sentences).

    A class has the same sentences in the full file and in that of its part, where labels restart at 0.
    """
    classes, dataset = toy_classes(name), name.replace("-", "_")
    files = {}
    for letter, steps in (("s", False), ("t", True)):
        for part in ("", "_base", "_novel"):
            members = [toy_class.name for toy_class in classes if part[1:] in {"", toy_class.split}]
            texts = [words.descriptions_of(member, steps=steps) for member in members]
            content = {str(label): text for label, text in enumerate(texts)}
            files[f"2_{letter}_description_{dataset}{part}.json"] = content
    return files


def unseen_clips(folder: Path, name: str, *, count: int = 4, seed: int = 1000) -> list[tuple[Path, str]]:
    """Write ``count`` clips that are in no list; return paths and true class names, spread over the classes."""
    classes = toy_classes(name)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        toy_class = classes[(2 * number + 1) * len(classes) // (2 * count)]
        path = folder / f"{name}_unseen_{number}.mp4"
        write_clip(ToyClip(toy_class, f"unseen/{seed}/{number}", path))
        made.append((path, toy_class.name))
    return made


def write_video(frames: Tensor, path: Path) -> None:
    """Encode uint8 (T, H, W, 3) as H.264 mp4; the file gets its name when it is whole."""
    import av

    partial = path.with_name(path.name + ".partial")
    with av.open(f"file:{partial}", "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "superfast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the bytes must not depend on the machine's cores
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    partial.replace(path)


def _numbers(toy_class: ToyClass, train_per_class: int, test_per_class: int) -> range:
    """Return the clip numbers of a class: training clips first, which novel classes lack."""
    return range(0 if toy_class.split == "base" else train_per_class, train_per_class + test_per_class)


def _file_name(label: int, number: int) -> str:
    return f"c{label:02d}_{number:03d}.mp4"


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _lists(classes: list[ToyClass], train_per_class: int, test_per_class: int, shots: int, seed: int) -> dict[str, str]:
    """Return the text of each label file and list, by file name; labels restart at 0 in the base and novel part."""
    files = {"labels.csv": _label_csv(classes)}
    tests = range(train_per_class, train_per_class + test_per_class)
    rows: dict[int, list[str]] = {number: [] for number in DRAWS}
    for split in ("base", "novel"):
        members = [(label, toy_class) for label, toy_class in enumerate(classes) if toy_class.split == split]
        files[f"{split}_labels.csv"] = _label_csv([toy_class for _, toy_class in members])
        lines = [f"{_file_name(full, n)} {own}\n" for own, (full, _) in enumerate(members) for n in tests]
        files[f"{split}_val.txt"] = "".join(lines)
        for number in DRAWS if split == "base" else ():
            for own, (full, _) in enumerate(members):
                drawn = random.Random(f"{seed}/{number}/{full}").sample(range(train_per_class), shots)
                rows[number] += [f"{_file_name(full, n)} {own}\n" for n in sorted(drawn)]
    return files | {f"fs_base_s{number}_train.txt": "".join(lines) for number, lines in rows.items()}


def _captions(
    classes: list[ToyClass], train_per_class: int, test_per_class: int, seed: int
) -> dict[str, dict[str, list[str]]]:
    """Return two or three captions of every training clip, one of every test clip."""
    found: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for label, toy_class in enumerate(classes):
        for number in _numbers(toy_class, train_per_class, test_per_class):
            split, count = ("train", 2 + number % 2) if number < train_per_class else ("test", 1)
            found[split][_file_name(label, number)] = pairs.captions_of(toy_class, f"{seed}/{number}", count)
    return found


def _label_csv(classes: list[ToyClass]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "name"])
    writer.writerows(enumerate(toy_class.name for toy_class in classes))
    return text.getvalue()


def _digest(settings: dict[str, object]) -> str:
    """Return a digest of the settings and of the code that decides the clips."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for source in (draw.__file__, words.__file__, clips.__file__, pairs.__file__, __file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


def _read_mark(folder: Path) -> dict[str, object]:
    try:
        mark = json.loads((folder / "world.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, newline="")
    partial.replace(path)


def _write_json(path: Path, content: dict[str, object]) -> None:
    _write_text(path, json.dumps(content, indent=1) + "\n")
