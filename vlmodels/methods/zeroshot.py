"""Zero-shot CLIP: the frozen backbone and the class prompts, nothing trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vlmodels.methods.base import Method, Preset, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn


class ZeroShot(Method):
    """The mean of the frames' frozen features, compared with the class prompts; 0 trainable parameters."""

    paper: ClassVar[str] = (
        "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021"
    )
    temporal: ClassVar[bool] = False
    starts_as_backbone: ClassVar[bool] = True
    features_learn: ClassVar[bool] = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """The prompt is the only choice."""

    presets: ClassVar[Mapping[str, Preset]] = {
        name: preset
        for preset in [Preset(Config(), Recipe(lr=1e-3, epochs=0, batch_size=32))]
        for name in ("b2n", "fewshot", "zeroshot", "full")
    }

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Return nothing: no parameter trains."""
        return ()

    def merged(self) -> dict[str, Tensor]:
        """Return no tensors: this is the bare backbone."""
        return {}
