"""What a sweep's command line asks for, once its flags are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.config.schema import TrainConfig

if TYPE_CHECKING:
    from tune_spaces.ablation_file import Ablation
    from tune_spaces.search import Kind, Scheduler
    from tune_spaces.spaces import Depths

SEARCH, LAYERS, APART = "search", "layers", "layers-apart"
"""Spaces that follow from a method's settings: all that may be tuned; layers, in both towers alike or in each apart."""


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """A sweep as the user asks for it; ``plan_sweep`` checks it.

    Attributes:
        base: what settings change; clips are held out in it to choose on.
        depths: layers of the backbone's towers.
        space: as ``--space`` names it.
        ablation: the table of settings that ``space`` names, if it names one.
        grid: texts ``KEY=A,B,C``.
        fixed: keys that ``--set`` gives.
        search: None for the kind that fits the other flags.
        samples: settings that random and tpe try.
        grace: epochs before a trial may be stopped.
        objectives: texts ``METRIC[:min]``; none for the default one.
        seeds: of each setting; none for that of ``base``.
        winner_seeds: of the winner; none if there is to be no winner.
        concurrent: trials at a time; 0 for as many as fit.
        register: name in the registry; None for the default one.
        dashboard: host where Ray's dashboard listens; None for no dashboard.
    """

    base: TrainConfig
    depths: Depths
    space: str | None = None
    ablation: Ablation | None = None
    grid: tuple[str, ...] = ()
    fixed: frozenset[str] = frozenset()
    search: Kind | None = None
    samples: int = 0
    scheduler: Scheduler = "none"
    grace: int = 1
    objectives: tuple[str, ...] = ()
    search_seed: int = 1
    seeds: tuple[int, ...] = ()
    winner_seeds: tuple[int, ...] = ()
    concurrent: int = 0
    score_all: bool = False
    register: str | None = None
    dashboard: str | None = None
    fresh: bool = False
    dry_run: bool = False
