"""What the registry says about a model, as tags to search by: method, backbone, data and scores."""

from __future__ import annotations

from pathlib import Path

from pipelines.records.run_file import RunRecord, numbers_of
from vlmodels.adapter_facts import AdapterFacts

_COUNTS = ("n_listed", "n_scored", "n_quarantined", "chance")


def facts_of_model(record: RunRecord, adapter: AdapterFacts) -> dict[str, object]:
    """Return the facts of a model by name; scores, in percent, are ``scores_of``."""
    backbone, facts = adapter.backbone, record.facts
    return {
        "vidadapt.run": record.name,
        "method": record.method,
        "preset": record.preset,
        "backbone": backbone.name,
        "backbone_weights": Path(backbone.weights).name,
        "backbone_digest": backbone.digest,
        "weights_digest": facts.weights_digest,
        "frames": backbone.frames,
        "views": f"{record.scoring.clips}x{record.scoring.crops}",
        "classes": len(adapter.classes),
        "trainable": facts.trainable,
        "protocol": record.protocol,
        "dataset": record.dataset,
        "data_digest": facts.data_digest,
        "split_digest": facts.split_digest,
        "seed": record.seed,
        "epoch": record.epoch_kept,
        "git": facts.git,
    }


def scores_of(record: RunRecord) -> dict[str, float]:
    """Return the scores by MLflow's names of them: "hm", "base/top1", "test/t2v/R1"."""
    numbers = numbers_of(record.metrics.to_json())
    return {name: value for name, value in numbers.items() if not ({*name.split("/")} & {*_COUNTS, "probe"})}
