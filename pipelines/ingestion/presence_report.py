"""The report of ``check_data.py``: a summary, a JSON file and the lists without unusable videos."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.text import aligned

if TYPE_CHECKING:
    from pipelines.ingestion.presence import Checked, Presence
    from pipelines.videos.inputs import Input, Inputs

SCHEMA = 1
EXAMPLES = 3
"""Videos shown of each kind."""
WORST = 10
"""Classes shown."""


@dataclass(frozen=True, slots=True)
class CheckRun:
    """How a data set was checked: whether its videos were decoded, how long it took, and notes on the data."""

    decoded: bool
    seconds: float
    notes: Sequence[str]


def summary(presence: Presence, notes: Sequence[str]) -> str:
    """Return a table of the splits, the worst classes, examples of each status, and the notes."""
    from pipelines.ingestion.presence import STATUSES

    rows = [("split", "listed", *STATUSES)]
    rows += [
        (name or "(none)", str(count.total()), *(str(count[status]) for status in STATUSES))
        for name, count in presence.counts().items()
    ]
    lines = [*aligned(rows), *_worst_classes(presence)]
    for status in STATUSES[1:]:
        lines += _examples([checked for checked in presence.videos if checked.status == status], status)
    if presence.extra:
        lines += ["", f"extra: {len(presence.extra)} videos that these lists do not name"]
        lines += [f"  {path}" for path in presence.extra[:EXAMPLES]] + _more(len(presence.extra), EXAMPLES)
    if notes:
        lines += ["", *(f"note: {note}" for note in notes)]
    return "\n".join(lines)


def _worst_classes(presence: Presence) -> list[str]:
    counts = presence.class_counts()
    bad = {name: count["missing"] + count["corrupt"] for name, count in counts.items()}
    worst = sorted((name for name in bad if bad[name]), key=lambda name: (-bad[name], name))
    if not worst:
        return []
    lines = ["", f"classes with missing or corrupt videos: {len(worst)} of {len(bad)}"]
    lines += [f"  {name or '(no class)'}: {bad[name]} of {counts[name].total()}" for name in worst[:WORST]]
    return lines + _more(len(worst), WORST)


def _examples(found: Sequence[Checked], status: str) -> list[str]:
    """Return lines about the videos of one status: a few of each kind of reason."""
    if not found:
        return []
    lines = ["", f"{status}: {len(found)}"]
    for kind, count in Counter(map(_kind, found)).most_common():
        examples = [checked for checked in found if _kind(checked) == kind][:EXAMPLES]
        lines += [f"  {count} x {kind}", *(f"      {_example(one, kind)}" for one in examples)]
        lines += _more(count, EXAMPLES, "      ")
    return lines


def _kind(checked: Checked) -> str:
    """Return the reason without what differs from video to video."""
    return checked.reason.split(": ")[0].split(" (")[0]


def _example(checked: Checked, kind: str) -> str:
    if checked.status == "renamed":
        return f"{checked.video.uri} is {checked.video.path}"
    if checked.reason == kind:
        return checked.video.uri
    return f"{checked.video.uri}: {checked.reason}"


def _more(total: int, shown: int, indent: str = "  ") -> list[str]:
    return [f"{indent}and {total - shown} more"] if total > shown else []


def write(out: Path, inputs: Inputs, presence: Presence, run: CheckRun) -> None:
    """Write ``check.json`` and the lists of the usable videos.

    Raises:
        UserError: ``out`` cannot be written to, or its ``lists`` were not written here.
    """
    from pipelines.storage.files import write_whole
    from vlmodels.errors import UserError

    plain = json.dumps(_to_json(inputs, presence, run), indent=1, ensure_ascii=False)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "check.json", lambda path: path.write_text(plain, encoding="utf-8"))
        _write_lists(out, inputs, presence)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error


def _to_json(inputs: Inputs, presence: Presence, run: CheckRun) -> dict[str, Any]:
    """Return the content of ``check.json``: counts by split and class, and every video that is not simply present."""
    from pipelines.ingestion.presence import STATUSES

    files = {one.name: {"files": one.files} for one in inputs.lists}
    splits = {
        name: {
            **files.get(name, {}),
            "listed": count.total(),
            **{status: count[status] for status in STATUSES},
            "classes": {label: dict(found) for label, found in sorted(presence.class_counts(name).items())},
        }
        for name, count in presence.counts().items()
    }
    return {
        "schema": SCHEMA,
        "dataset": inputs.dataset,
        "root": inputs.place,
        "understood": list(inputs.understanding.lines()) if inputs.understanding else [],
        "complete": presence.complete,
        "splits": splits,
        "not_present": [_entry(checked) for checked in presence.videos if checked.status != "present"],
        "extra": list(presence.extra),
        "decoded": run.decoded,
        "seconds": round(run.seconds, 3),
        "notes": list(run.notes),
    }


def _entry(checked: Checked) -> dict[str, Any]:
    return {
        "path": checked.video.uri,
        "status": checked.status,
        "reason": checked.reason,
        "found": checked.video.path or None,
        "class": checked.video.label,
        "splits": checked.video.split.split("|"),
    }


def _write_lists(out: Path, inputs: Inputs, presence: Presence) -> None:
    """Write the lists again without unusable videos; for own data, as one CSV or a list for each split."""
    from pipelines.videos.kept_lists import LISTS, kept_file, swap_in
    from pipelines.videos.list_folder import KEPT

    usable = [checked.video for checked in presence.videos if checked.usable]
    if inputs.lists:
        lists = _filtered(inputs, usable)
    elif inputs.classes:
        lists = _own(inputs, usable, presence.splits)
    else:
        lists = _Lists({}, {})
    files = lists.files | kept_file(inputs.dataset, lists.labels) if lists.files else {}
    swap_in(out / LISTS, files, KEPT)


@dataclass(frozen=True, slots=True)
class _Lists:
    """Contents of files by name, and for each list the name of its label file."""

    files: dict[str, bytes]
    labels: dict[str, str]

    def add(self, name: str, lines: Iterable[tuple[str, int]]) -> None:
        """Add a list of paths and labels, unless it is empty."""
        from pipelines.videos.kept_lists import list_text

        text = list_text(lines)
        if text:
            self.files[f"{name}.txt"] = text


def _filtered(inputs: Inputs, usable: Sequence[Input]) -> _Lists:
    from pipelines.videos.kept_lists import label_names
    from pipelines.videos.uris import uri_of

    uris = {video.uri for video in usable}
    lists = _Lists({}, label_names(inputs.lists))
    for one in inputs.lists:
        lines = ((line.cut.after(uri_of(line.path)), line) for line in one.lines)
        lists.add(one.name, ((line.name, line.label) for uri, line in lines if uri in uris))
        lists.files[lists.labels[one.name]] = one.labels_path.read_bytes()
    return lists


def _own(inputs: Inputs, usable: Sequence[Input], splits: Sequence[str]) -> _Lists:
    from pipelines.videos.kept_lists import labels_text, table_text

    number = {name: i for i, name in enumerate(inputs.classes)}
    lists = _Lists({"labels.csv": labels_text(inputs.classes)}, {})
    rows = [(video, split) for video in usable if video.label for split in video.split.split("|")]
    if any(video.source for video, _ in rows):  # 'path label' lines cannot hold groups
        cells = ((video.uri, number[video.label], video.source, split) for video, split in rows)
        lists.files["all.csv"] = table_text(("path", "label", "group", "split"), cells)
        lists.labels["all"] = "labels.csv"
        return lists
    for name in splits:
        lists.add(name or "all", ((video.uri, number[video.label]) for video, split in rows if split == name))
        lists.labels[name or "all"] = "labels.csv"
    return lists
