"""Model card and report of a finished run, drawn after its numbers are known and shown."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.config.schema import TrackingConfig
from pipelines.records.home import Home
from pipelines.runs.mlflow_store import PROBE_S, connect
from pipelines.runs.record import RunResult

REPORT = "report"


def draw_pages(result: RunResult, tracking: TrackingConfig, home: Home, *, say: Callable[[str], None] = print) -> bool:
    """Write model card and report to a run's folder, and to its MLflow run, unless they are there.

    Returns:
        Whether MLflow has them, if it tracks the run.

    Args:
        result: the finished run.
        tracking: where it is tracked.
        home: where it is kept.
        say: gets a line if MLflow does not take the pages.
    """
    name = result.record.name
    if home.holds(name, f"{REPORT}/report.html"):
        return True

    from pipelines.reports.model_card import CARD, write_model_card
    from pipelines.reports.run_page import write_run_report

    with home.local_copy(name) as folder:
        write_model_card(folder)
        write_run_report(folder)
        home.add(folder / CARD, name)
        home.add(folder / REPORT, name)
        if tracking.uri is None or result.record.tracking.run_id is None:
            return True
        try:
            client = connect(tracking.uri, say, patience_s=PROBE_S)
            client.log_artifact(result.record.tracking.run_id, str(folder / CARD))
            client.log_artifacts(result.record.tracking.run_id, str(folder / REPORT), REPORT)
        except Exception as error:  # noqa: BLE001 - the run is whole, and so are the pages
            say(f"{name}: MLflow did not take the report ({type(error).__name__}); it is in {result.run_dir}")
            return False
    return True
