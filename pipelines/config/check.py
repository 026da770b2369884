"""The rules that a configuration must fulfil before data or backbone are read."""

from __future__ import annotations

from pipelines.config.schema import Rule, TrainConfig


def check(config: TrainConfig) -> list[str]:
    """Return one message, with the remedy, for each value that breaks a rule.

    The rules of a group are in its class (``OptimConfig.rules``); those here concern several groups.
    """
    rules = [
        _data_rule(config),
        *config.optim.rules(),
        (config.seed >= 0, f"seed={config.seed} must not be negative"),
        *config.scale.rules(),
        *_worker_rules(config),
        *config.data.rules(),
        *config.augment.rules(),
        *config.protocol.rules(),
        *config.tracking.rules(),
        *_selection_rules(config),
    ]
    return [message for holds, message in rules if not holds]


def _data_rule(config: TrainConfig) -> Rule:
    return (
        bool(config.data.dir or config.protocol.tests),
        "no data given; pass --data DIR, a folder that pipelines/ingest.py made",
    )


def _worker_rules(config: TrainConfig) -> list[Rule]:
    """Return the rules on how a batch and the parts of the data are divided among workers."""
    batch, workers, parts = config.optim.batch_size, config.scale.workers, config.data.parts
    return [
        (
            batch >= workers,
            f"optim.batch_size={batch} is the total over all workers and must be at least scale.workers={workers}",
        ),
        (
            parts == 1 or 1 <= workers <= parts <= batch,
            f"data.parts={parts} must be between scale.workers={workers}, so that each has one, and "
            f"optim.batch_size={batch}; or 1",
        ),
    ]


def _selection_rules(config: TrainConfig) -> list[Rule]:
    """Return the rules on what is held out, selected and scored."""
    protocol = config.protocol
    retrieval = protocol.name == "retrieval"
    return [
        (
            not protocol.holdout_classes or (protocol.holdout > 0 and not retrieval),
            "protocol.holdout_classes holds out whole classes beside clips of all others: set protocol.holdout too, "
            "for instance 0.2; retrieval has no classes",
        ),
        (
            config.test or protocol.holdout > 0,
            "test=false leaves nothing to score: set protocol.holdout, for instance 0.2",
        ),
        (
            config.test or config.selection != "test-best",
            "selection=test-best scores the test list; it does not go with test=false",
        ),
        (
            config.selection != "select" or protocol.holdout > 0,
            "selection=select needs clips to select on: set protocol.holdout, for instance 0.2",
        ),
        (
            not (config.data.probe and retrieval),
            "data.probe scores classes in other orders of frames, and retrieval has no classes: leave it off",
        ),
    ]
