"""The report of ``check_data.py``: summary, JSON file and filtered lists."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.text import aligned

if TYPE_CHECKING:
    from pipelines.ingestion.presence import Checked, Presence
    from pipelines.videos.inputs import Inputs


SCHEMA = 1
EXAMPLES, WORST = 3, 10


def summary(presence: Presence, notes: Sequence[str]) -> str:
    """Return a table of the splits, the worst classes, examples of each kind, and the notes."""
    from pipelines.ingestion.presence import STATUSES

    rows = [("split", "listed", *STATUSES)]
    rows += [
        (name or "(none)", str(count.total()), *(str(count[status]) for status in STATUSES))
        for name, count in presence.counts().items()
    ]
    lines = list(aligned(rows))
    bad = {name: count["missing"] + count["corrupt"] for name, count in presence.class_counts().items()}
    worst = sorted((name for name in bad if bad[name]), key=lambda name: (-bad[name], name))
    if worst:
        totals = presence.class_counts()
        lines += ["", f"classes with missing or corrupt videos: {len(worst)} of {len(bad)}"]
        lines += [f"  {name or '(no class)'}: {bad[name]} of {totals[name].total()}" for name in worst[:WORST]]
        lines += _more(len(worst), WORST)
    for status in STATUSES[1:]:
        found = [checked for checked in presence.videos if checked.status == status]
        kinds = Counter(checked.reason.split(": ")[0].split(" (")[0] for checked in found)
        if found:
            lines += ["", f"{status}: {len(found)}"]
        for kind, count in kinds.most_common():
            examples = [checked for checked in found if checked.reason.startswith(kind)][:EXAMPLES]
            lines += [f"  {count} x {kind}", *(f"      {_example(one, kind)}" for one in examples)]
            lines += _more(count, EXAMPLES, "      ")
    if presence.extra:
        lines += ["", f"extra: {len(presence.extra)} videos that these lists do not name"]
        lines += [f"  {path}" for path in presence.extra[:EXAMPLES]] + _more(len(presence.extra), EXAMPLES)
    return "\n".join([*lines, *([""] if notes else []), *(f"note: {note}" for note in notes)])


def _example(checked: Checked, kind: str) -> str:
    if checked.status == "renamed":
        return f"{checked.video.uri} is {checked.video.path}"
    return checked.video.uri + (f": {checked.reason}" if checked.reason != kind else "")


def _more(total: int, shown: int, indent: str = "  ") -> list[str]:
    return [f"{indent}and {total - shown} more"] if total > shown else []


def write(out: Path, inputs: Inputs, presence: Presence, facts: dict[str, Any]) -> None:
    """Write ``check.json`` and the lists of what is usable.

    Raises:
        UserError: ``out`` cannot be written, or its ``lists`` are not ours.
    """
    from pipelines.storage.files import write_whole
    from vlmodels.errors import UserError

    plain = json.dumps(report(inputs, presence) | facts, indent=1, ensure_ascii=False)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "check.json", lambda path: path.write_text(plain, encoding="utf-8"))
        _write_lists(out, inputs, presence)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error


def report(inputs: Inputs, presence: Presence) -> dict[str, Any]:
    """Return what ``check.json`` holds: counts by split and class, and every video that is not simply present."""
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
        "complete": presence.complete,
        "splits": splits,
        "not_present": [
            {
                "path": checked.video.uri,
                "status": checked.status,
                "reason": checked.reason,
                "found": checked.video.path or None,
                "class": checked.video.label,
                "splits": checked.video.split.split("|"),
            }
            for checked in presence.videos
            if checked.status != "present"
        ],
        "extra": list(presence.extra),
    }


def _write_lists(out: Path, inputs: Inputs, presence: Presence) -> None:
    from pipelines.videos.inputs import uri_of
    from pipelines.videos.kept_lists import LISTS, kept_file, label_names, labels_text, list_text, swap_in, table_text
    from pipelines.videos.list_folder import KEPT

    usable = [checked.video for checked in presence.videos if checked.usable]
    files: dict[str, bytes] = {}
    labels: dict[str, str] = {}

    def add(name: str, lines: Iterable[tuple[str, int]]) -> None:
        text = list_text(lines)
        if text:
            files[f"{name}.txt"] = text

    if inputs.lists:
        uris = {video.uri for video in usable}
        labels = label_names(inputs.lists)
        for one in inputs.lists:
            add(one.name, ((line.path, line.label) for line in one.lines if uri_of(line.path) in uris))
            files[labels[one.name]] = one.labels_path.read_bytes()
    elif inputs.classes:
        number = {name: i for i, name in enumerate(inputs.classes)}
        files["labels.csv"] = labels_text(inputs.classes)
        rows = [(video, split) for video in usable if video.label for split in video.split.split("|")]
        if any(video.source for video, _ in rows):  # 'path label' lines cannot hold groups
            cells = ((video.uri, number[video.label], video.source, split) for video, split in rows)
            files["all.csv"] = table_text(("path", "label", "group", "split"), cells)
            labels["all"] = "labels.csv"
        else:
            for name in presence.splits:
                add(name or "all", ((video.uri, number[video.label]) for video, split in rows if split == name))
                labels[name or "all"] = "labels.csv"
    swap_in(out / LISTS, files | kept_file(inputs.dataset, labels) if files else {}, KEPT)
