"""The table of settings that ``--space`` names, for a backbone's towers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.sweeps.request import APART, LAYERS, SEARCH
from vlmodels.errors import UserError, nearest

if TYPE_CHECKING:
    from tune_spaces.ablation_file import Ablation
    from tune_spaces.spaces import Depths


def tower_depths(backbone: str) -> Depths:
    """Count the layers of both towers.

    Raises:
        UserError: no such backbone.
    """
    import torch

    from vlmodels.clip import create

    with torch.device("meta"):
        spec = create(backbone, weights=None, num_frames=8).spec
    return {"video": spec.video_layers, "text": spec.text_layers}


def find_ablation(space: str | None, *, method: str, depths: Depths) -> Ablation | None:
    """Return the table that ``space`` names, a published one or FILE.toml:NAME; None if it names another space.

    Raises:
        UserError: no such space, or a table of another method.
    """
    from tune_spaces.ablation_file import read_ablation
    from tune_spaces.ablations import ablation_names, load_ablation

    if space in (None, SEARCH, LAYERS, APART):
        return None
    if ".toml:" in space:
        path, _, name = space.rpartition(":")
        found = read_ablation(path, name)
        if found.method != method:
            raise UserError(f"{space} is for {found.method}: pass --method {found.method}")
        return found
    published = ablation_names(method)
    if space in published:
        return load_ablation(method, space, depths)
    known = [*published, LAYERS, APART, SEARCH]
    raise UserError(
        f"unknown space '{space}'{nearest(space, known)}; spaces of {method}: {', '.join(known)}, or FILE.toml:NAME"
    )
