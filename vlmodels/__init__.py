"""Video-language models: backbones, adaptation methods, and predictors of trained ones. Pure torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vlmodels.deferred_imports import defer_imports

if TYPE_CHECKING:
    from vlmodels.clip import create as create
    from vlmodels.methods import get as get_method
    from vlmodels.methods import names as list_methods
    from vlmodels.predictor import Predictor as Predictor
    from vlmodels.predictor import load as load

_PUBLIC = {  # name -> module and attribute
    "create": ("vlmodels.clip", "create"),
    "get_method": ("vlmodels.methods", "get"),
    "list_methods": ("vlmodels.methods", "names"),
    "load": ("vlmodels.predictor", "load"),
    "Predictor": ("vlmodels.predictor", "Predictor"),
}

__all__ = ["Predictor", "create", "get_method", "list_methods", "load"]

defer_imports()  # here, as any module of this package may be the first to import open_clip or torchvision


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import vlmodels`` does not import torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vlmodels' has no attribute '{name}'")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)
