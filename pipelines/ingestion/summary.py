"""What an ingest prints when it is done."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.ingestion.ingest import IngestReport


def summary(report: IngestReport) -> str:
    """Return counts, the reasons why videos were set aside (most frequent first), and where things are."""
    lines = [
        f"{report.ok} clips stored, {len(report.quarantined)} of {report.total} videos set aside "
        f"({report.decoded} decoded now, {report.kept} kept; {report.seconds:.1f} s)"
    ]
    if len(report.machines) > 1:
        lines.append(f"decoded on {', '.join(f'{address} ({clips})' for address, clips in report.machines)}")
    reasons = defaultdict(list)
    for uri, reason in report.quarantined:
        reasons[reason.split(":")[0].split(" (")[0]].append((uri, reason))
    for kind, clips in sorted(reasons.items(), key=lambda item: -len(item[1])):
        lines.append(f"  {len(clips)} x {kind}")
        lines += [f"      {uri}: {reason}" for uri, reason in clips[:3]]
        if len(clips) > 3:
            lines.append(f"      and {len(clips) - 3} more")
    lines.append(f"manifest  {report.manifest}\ndigest    {report.digest}")
    return "\n".join(lines)
