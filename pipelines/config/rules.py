"""What a configuration's values must fulfil by themselves, before data or backbone are looked at."""

from __future__ import annotations

import math

from pipelines.config.schema import TrainConfig


def check(config: TrainConfig) -> list[str]:
    """Return what is wrong with the values themselves (not with data or backbone), each with the remedy."""
    o, s, p, d = config.optim, config.scale, config.protocol, config.data
    rules = [
        (bool(d.dir or p.tests), "no data given; pass --data DIR, a folder that pipelines/ingest.py made"),
        (0 < o.lr < math.inf, f"optim.lr={o.lr} must be above 0 and finite"),
        (o.warmup_epochs >= 0, f"optim.warmup_epochs={o.warmup_epochs} must not be negative"),
        (
            o.warmup_epochs < o.epochs or o.epochs == 0,
            f"optim.warmup_epochs={o.warmup_epochs:g} leaves nothing of {o.epochs} epochs; set it below that",
        ),
        (0 <= o.label_smoothing < 1, f"optim.label_smoothing={o.label_smoothing} must be in [0, 1); 0 turns it off"),
        (0 <= o.weight_decay < math.inf, f"optim.weight_decay={o.weight_decay} must not be negative"),
        (0 <= o.beta1 < 1 and 0 <= o.beta2 < 1, f"optim.beta1={o.beta1} and beta2={o.beta2} must be in [0, 1)"),
        (o.eps > 0, f"optim.eps={o.eps} must be above 0"),
        (0 <= o.min_lr_ratio <= 1, f"optim.min_lr_ratio={o.min_lr_ratio} must be in [0, 1]"),
        (config.seed >= 0, f"seed={config.seed} must not be negative"),
        (0 < s.cpus_per_worker < math.inf, f"scale.cpus_per_worker={s.cpus_per_worker} must be above 0"),
        (o.epochs >= 0, f"optim.epochs={o.epochs} must not be negative"),
        (o.batch_size >= 1, f"optim.batch_size={o.batch_size} must be at least 1"),
        (o.micro_batch >= 0, f"optim.micro_batch={o.micro_batch} must not be negative (0: the whole share)"),
        (s.workers >= 1, f"scale.workers={s.workers} must be at least 1"),
        (
            o.batch_size >= s.workers,
            f"optim.batch_size={o.batch_size} is the total over all workers and must be at least "
            f"scale.workers={s.workers}",
        ),
        (
            0 <= s.min_workers <= s.workers,
            f"scale.min_workers={s.min_workers} must be at most scale.workers={s.workers} (0: all of them)",
        ),
        (
            d.parts == 1 or 1 <= s.workers <= d.parts <= o.batch_size,
            f"data.parts={d.parts} must be between scale.workers={s.workers}, so that each has one, and "
            f"optim.batch_size={o.batch_size}; or 1",
        ),
        (
            0 < s.gpus_per_worker <= 1 and (s.gpus_per_worker == 1 or s.workers == 1),
            f"scale.gpus_per_worker={s.gpus_per_worker:g} must be in (0, 1], and 1 with several workers: NCCL gives "
            "each rank a GPU of its own",
        ),
        (s.eval_batch >= 1, f"scale.eval_batch={s.eval_batch} must be at least 1"),
        (s.regrow_s >= 0, f"scale.regrow_s={s.regrow_s} must not be negative"),
        (s.max_failures >= 0, f"scale.max_failures={s.max_failures} must not be negative"),
        (d.clips >= 1, f"data.clips={d.clips} must be at least 1"),
        (d.crops in (1, 3, 4), f"data.crops={d.crops} must be 1 (centre), or 3 or 4 (along the long side)"),
        (
            0 < config.augment.crop_scale <= 1,
            f"augment.crop_scale={config.augment.crop_scale} must be in (0, 1]",
        ),
        (p.shots >= 1, f"protocol.shots={p.shots} must be at least 1"),
        (0 < p.test_fraction < 1, f"protocol.test_fraction={p.test_fraction} must be between 0 and 1"),
        (p.split_seed >= 0, f"protocol.split_seed={p.split_seed} must not be negative"),
        (0 <= p.holdout < 1, f"protocol.holdout={p.holdout} must be in [0, 1)"),
        (0 <= p.holdout_classes < 1, f"protocol.holdout_classes={p.holdout_classes} must be in [0, 1)"),
        (
            not p.holdout_classes or (p.holdout > 0 and not config.test and p.name != "retrieval"),
            "protocol.holdout_classes takes classes out of training that the test lists have: set test=false and "
            "protocol.holdout, for instance 0.2 (pipelines/sweep.py trains its winner on all classes); retrieval has "
            "no classes",
        ),
        (
            config.test or p.holdout > 0,
            "test=false leaves nothing to score: set protocol.holdout, for instance 0.2",
        ),
        (
            config.test or config.selection != "test-best",
            "selection=test-best scores the test list; it does not go with test=false",
        ),
        (
            config.selection != "select" or p.holdout > 0,
            "selection=select needs clips to select on: set protocol.holdout, for instance 0.2",
        ),
        (
            not (d.probe and p.name == "retrieval"),
            "data.probe scores classes in other orders of frames; retrieval has no classes: leave it off",
        ),
    ]
    problems = [message for holds, message in rules if not holds]
    problems += [
        f"augment.{name}={value} is a probability and must be in [0, 1]"
        for name in ("flip", "jitter", "gray")
        if not 0 <= (value := getattr(config.augment, name)) <= 1
    ]
    problems += [
        f"augment.{name}={value} is the parameter of a Beta distribution, finite and not negative; 0 turns it off"
        for name in ("mixup", "cutmix")
        if not 0 <= (value := getattr(config.augment, name)) < math.inf
    ]
    return problems
