"""The summary that an ingest prints at its end."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.ingestion.ingest import IngestReport

EXAMPLES = 3
"""Videos that are listed of each kind of reason."""


def summary(report: IngestReport) -> str:
    """Return counts, the reasons why videos were set aside (most frequent first), and where the result is."""
    lines = [
        f"{report.ok} clips stored, {len(report.quarantined)} of {report.total} videos set aside "
        f"({report.decoded} decoded now, {report.kept} kept; {report.seconds:.1f} s)"
    ]
    if len(report.machines) > 1:
        lines.append(f"decoded on {', '.join(f'{address} ({clips})' for address, clips in report.machines)}")
    lines += _reasons(report)
    lines.append(f"manifest  {report.manifest}")
    lines.append(f"digest    {report.digest}")
    return "\n".join(lines)


def _reasons(report: IngestReport) -> Iterator[str]:
    by_kind: dict[str, list[str]] = defaultdict(list)
    for uri, reason in report.quarantined:
        kind = reason.split(":")[0].split(" (")[0]
        by_kind[kind].append(f"      {uri}: {reason}")
    for kind, videos in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        yield f"  {len(videos)} x {kind}"
        yield from videos[:EXAMPLES]
        if len(videos) > EXAMPLES:
            yield f"      and {len(videos) - EXAMPLES} more"
