"""Make AdamW for what a method trains: its parameter groups, and the learning rate of every step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipelines.config.schema import OptimConfig

if TYPE_CHECKING:
    from vlmodels.methods.base import Method


def learning_rate(step: int, optim: OptimConfig, steps_per_epoch: int) -> float:
    """Return the rate at ``step`` (0-based): linear warm-up from 0, then a cosine to ``min_lr_ratio * lr``.

    The cosine's phase counts from step 0 ("through": MSTA's training logs; the rate falls where warm-up ends), or
    from the end of the warm-up ("restarted": M2-CLIP).
    """
    warmup = optim.warmup_epochs * steps_per_epoch
    if step < warmup:
        return optim.lr * step / warmup
    low = optim.lr * optim.min_lr_ratio
    total = optim.epochs * steps_per_epoch
    begin = warmup if optim.schedule == "restarted" else 0
    return low + 0.5 * (optim.lr - low) * (1 + math.cos(math.pi * (step - begin) / (total - begin)))


def make_optimizer(method: Method, optim: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over :func:`parameter_groups`."""
    return torch.optim.AdamW(
        parameter_groups(method, optim), lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps
    )


def parameter_groups(method: Method, optim: OptimConfig) -> list[dict[str, Any]]:
    """Return what trains, in one group for each pair of rate factor and weight decay.

    Groups and their parameters keep the method's order, so that a saved optimizer's state finds its parameters.

    Raises:
        ValueError: two parts with a factor of their own share a parameter.
    """
    factors: dict[Tensor, float] = {}
    for part, factor in method.learning_rate_factors():
        for parameter in part.parameters():
            if parameter in factors:
                raise ValueError(f"{method.name}: parts that train at another rate overlap")
            factors[parameter] = factor
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            decay = optim.weight_decay if _decays(name, parameter, optim.no_decay) else 0.0
            groups.setdefault((factors.get(parameter, 1.0), decay), []).append(parameter)
    return [{"params": found, "factor": factor, "weight_decay": decay} for (factor, decay), found in groups.items()]


def _decays(name: str, parameter: Tensor, no_decay: str) -> bool:
    is_bias = name.endswith("bias")  # also attention's in_proj_bias
    return not {"none": False, "biases": is_bias, "vectors": is_bias or parameter.ndim <= 1}[no_decay]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group ``rate`` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
