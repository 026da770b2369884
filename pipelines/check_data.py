"""Check a data set before anything trains: what is present, renamed, missing, corrupt, and what no list names.

Examples:
  python pipelines/check_data.py --dataset hmdb51 --lists REPO --root VIDEOS --out CHECK
  python pipelines/check_data.py --videos val.txt --labels labels.csv --root VIDEOS --decode
  python pipelines/check_data.py --videos DIR
  python pipelines/check_data.py --videos mine.csv --root s3://BUCKET/videos --out CHECK        # in a store

Files are found as ingest finds them (renamed: in another folder, with another suffix or case) and their first bytes
are read, which shows empty files and failed downloads; --decode decodes every video as ingest would, for which those
in a store are fetched, one after another, and not kept. CHECK/check.json
has every video that is not simply present; CHECK/lists has the lists without what is missing or corrupt, with their
label files, to be passed as --lists (one CSV of own data with groups, which it keeps). Exit code: 0 if every listed
video is there and whole, 1 if some are missing or corrupt, 2 with one line of error for a mistake.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli import run_script
from pipelines.input_flags import add_input_flags, inputs_from, local_only

if TYPE_CHECKING:
    from pipelines.data.inputs import Inputs
    from pipelines.data.presence import Checked, Presence

SCHEMA = 1
EXAMPLES, WORST = 3, 10


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="check_data.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_input_flags(parser)
    add = parser.add_argument
    add("--out", metavar="DIR", help="where check.json and the filtered lists go (default: nothing is written)")
    add("--decode", action="store_true", help="decode every video; without, only the first bytes are looked at")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Find the videos, look at them, say what became of them."""
    args = parser().parse_args(argv)

    from pipelines.data.lists import ListFolder
    from pipelines.data.presence import check, first_bytes, undecodable
    from pipelines.data.remarks import remarks

    started = time.monotonic()
    local_only(args, "out")
    out = Path(args.out) if args.out else None
    inputs = inputs_from(args, exclude=out, scan=True)
    print(f"{len(inputs.videos)} listed videos of {len(inputs.classes)} classes, below {inputs.place}", flush=True)
    say = partial(print, flush=True)
    broken = first_bytes(inputs, say=say)
    if args.decode:
        broken |= undecodable(inputs, known=broken, workers=args.workers, time_limit=args.timeout, say=say)
    presence = check(inputs, broken=broken)
    folder = ListFolder.open(args.lists, args.dataset) if args.lists else None
    notes = remarks(inputs, folder, args.protocol)
    seconds = time.monotonic() - started
    print(summary(presence, notes), flush=True)
    if out is not None:
        write(out, inputs, presence, {"decoded": args.decode, "seconds": round(seconds, 3), "notes": notes})
        print(f"report  {out / 'check.json'}" + (f"\nlists   {out / 'lists'}" if (out / "lists").is_dir() else ""))
    print(f"{'decoded' if args.decode else 'not decoded (--decode does)'}; {seconds:.1f} s")
    return 0 if presence.complete else 1


def summary(presence: Presence, notes: Sequence[str]) -> str:
    """Return a table of the splits, the worst classes, examples of each kind, and the notes."""
    from pipelines.data.presence import STATUSES

    rows = [("split", "listed", *STATUSES)]
    rows += [
        (name or "(none)", str(count.total()), *(str(count[status]) for status in STATUSES))
        for name, count in presence.counts().items()
    ]
    lines = _table(rows)
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


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _more(total: int, shown: int, indent: str = "  ") -> list[str]:
    return [f"{indent}and {total - shown} more"] if total > shown else []


def write(out: Path, inputs: Inputs, presence: Presence, facts: dict[str, Any]) -> None:
    """Write ``check.json`` and the lists of what is usable.

    Raises:
        UserError: ``out`` cannot be written, or its ``lists`` are not ours.
    """
    from pipelines.data.folder import write_whole
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
    from pipelines.data.presence import STATUSES

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
    from pipelines.data.inputs import uri_of
    from pipelines.data.keptlists import LISTS, kept_file, label_names, labels_text, list_text, swap_in, table_text
    from pipelines.data.lists import KEPT

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


if __name__ == "__main__":
    run_script(main)
