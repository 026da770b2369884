"""Linear probe: a classifier on the frozen video feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from vlmodels.heads import ClassHead, class_token_output
from vlmodels.methods.base import Method, Output, Preset
from vlmodels.methods.msta import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Linear(Method):
    """``W ln_post(class token) + b``, the normed class token averaged over frames; ``D C + C`` parameters.

    It is the feature before the projection to the joint space, as in CLIP's own linear probes (section 3.2).
    Classes that it was not trained on are scored by their texts: see ``beside_texts``. Built for no classes, as
    it may be for prediction, it is zero-shot CLIP.
    """

    paper: ClassVar[str] = (
        "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021"
    )
    temporal: ClassVar[bool] = False
    starts_as_backbone: ClassVar[bool] = False  # the classifier starts at random

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """Only the prompt of the classes that it was not trained on can be chosen."""

    # CLIP's probes were fitted to still images with L-BFGS; for videos there is no recipe: MSTA's
    presets: ClassVar[Mapping[str, Preset]] = {
        name: Preset(method, recipe) for method in [Config()] for name, recipe in RECIPES.items()
    }

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Build the classifier; the towers stay as they are."""
        self.head: ClassHead | None = None
        if not self.trained_classes:
            return ()
        self.head = ClassHead(self.backbone.spec.video_width, self.trained_classes)
        return (self.head,)

    def forward(self, frames: Tensor, labels: Tensor | None = None) -> Output:
        """Score clips (B,T,3,H,W) by the classifier."""
        if self.head is None:
            return super().forward(frames, labels)
        return class_token_output(self, self.head, frames)
