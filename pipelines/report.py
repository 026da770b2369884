"""Results of many runs as the papers' tables: our score, the published one, the difference, and pictures.

Example:
  python pipelines/report.py --runs runs --out report
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.config.protocols import PROTOCOLS
from pipelines.run_script import run_script


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``report.html``, ``report.md`` and ``ledger.json``; runs that cannot be read are named and left out."""
    parser = argparse.ArgumentParser(
        prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", action="append", metavar="DIR|URI", help="folder with runs, may be repeated (default: runs)")
    add("--out", type=Path, default=Path("report"), metavar="DIR", help="where to write (default: report)")
    add("--protocol", choices=list(PROTOCOLS), help="only this one")
    add("--dataset", metavar="NAME", help="only this data set (hmdb51, ...)")
    add("--brief", action="store_true", help="tables and common pictures, none of single runs")
    args = parser.parse_args(argv)

    from pipelines.records.find import read_runs
    from pipelines.records.ledger import make_ledger
    from pipelines.records.summary import table
    from pipelines.reports.ledger_page import write_ledger

    runs = read_runs(args.runs or ["runs"])
    ledger = make_ledger([run.record for run in runs], protocol=args.protocol, dataset=args.dataset)
    page = write_ledger(ledger, runs, args.out, brief=args.brief)
    print(f"{table([record for summary in ledger.summaries for record in summary.records])}\n")
    print(f"report  {page}")
    return 0


if __name__ == "__main__":
    run_script(main)
