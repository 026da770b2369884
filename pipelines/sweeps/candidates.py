"""Candidates: the settings that one trial overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.config.plain import digest_of
from pipelines.config.resolve import resolve
from pipelines.config.schema import TrainConfig

if TYPE_CHECKING:
    from tune_spaces.domains import Setting


@dataclass(frozen=True)
class Candidate:
    """A setting with a seed: what one trial trains."""

    setting: Setting
    seed: int

    @property
    def id(self) -> str:
        """Its name among the sweep's trials."""
        return digest_of([dict(self.setting), self.seed])[:10]

    @property
    def label(self) -> str:
        """The setting as a reader sees it: ``layers=8-12, lr=0.001``."""
        return label_of(self.setting)


def label_of(setting: Setting) -> str:
    """Return a setting in short: the last part of each key, and its value."""
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in setting.items())


def overridden(config: TrainConfig, setting: Mapping[str, str], **changes: Any) -> TrainConfig:
    """Return a resolved configuration with a setting on top.

    Args:
        config: the configuration to override.
        setting: texts by key, as ``--set`` takes them.
        changes: fields of the configuration to replace as well.

    Raises:
        UserError: an unknown key, an impossible value, or values that do not go together.
    """
    items = [f"{key}={value}" for key, value in setting.items()]
    changed = resolve(method=config.method, preset=None, base=config, overrides=items, trained=config.method_config)
    return replace(changed, preset=config.preset, **changes)


def winner_config(config: TrainConfig, seed: int) -> TrainConfig:
    """Return a trial's configuration as the winner is trained with it: on all training clips and classes, and tested.

    Held-out clips stay out where they choose the epoch (``selection=select``).
    """
    held = config.protocol.holdout if config.selection == "select" else 0.0
    protocol = replace(config.protocol, holdout=held, holdout_classes=0.0)
    return replace(config, protocol=protocol, seed=seed, test=True)
