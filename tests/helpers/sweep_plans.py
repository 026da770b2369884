"""Requests of small sweeps, from their command lines."""

from __future__ import annotations

from pipelines.sweeps.flags import parse, request_from

_COMMON = ("optim.batch_size=4", "optim.epochs=2", "optim.warmup_epochs=1", "protocol.shots=4")
_NO_MIXING = ("augment.mixup=0", "augment.cutmix=0")
SMALL = [part for setting in (*_COMMON, *_NO_MIXING) for part in ("--set", setting)]
SMALL_MSTA = ["--set", "method.alpha=0", *SMALL]
"""Settings of a training of seconds; the first of MSTA alone."""


def request_of(data, *arguments):
    """What a command line asks for."""
    return request_from(*parse(["--data", str(data), *arguments], ""))
