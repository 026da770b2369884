"""Models of open_clip with the weights of their published tags."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import open_clip
from open_clip.pretrained import get_pretrained_cfg

from vlmodels.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def create_published(name: str, tag: str) -> nn.Module:
    """Create an open_clip model with published weights.

    Raises:
        UserError: they are not on this machine and cannot be downloaded.
    """
    if get_pretrained_cfg(name, tag).get("quick_gelu"):
        warn_of_gelu(f"the weights '{tag}'", name)
    muted = logging.root.manager.disable
    logging.disable(logging.ERROR)  # the hub logs each retry; the error below has the reason
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")
            model: nn.Module = open_clip.create_model(name, pretrained=tag)
    except (RuntimeError, OSError) as error:
        reason = str(error).rpartition("Last error: ")[2].strip().partition("\n")[0][:200]
        raise UserError(
            f"the weights '{tag}' of {name} are not on this machine and cannot be downloaded ({reason}); "
            "download them elsewhere and pass the file's path as the weights (HF_HUB_OFFLINE=1 avoids the retries)"
        ) from error
    finally:
        logging.disable(muted)
    return model


def warn_of_gelu(weights: str, name: str) -> None:
    """Warn if weights were trained with another activation than a model has."""
    if open_clip.get_model_config(name).get("quick_gelu"):
        return
    warnings.warn(
        f"{weights} were trained with QuickGELU, which {name} lacks: use '{name}-quickgelu'",
        stacklevel=5,
    )
