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
    """``W norm(class token) + b``, the normed class token averaged over frames; ``D C + C`` parameters.

    Towers that pool by a map or a mean give that token instead (``VideoView``).

    It reads the feature before the projection to the joint space, as CLIP's own linear probes do (section 3.2). Other
    classes than those of training are scored by their texts, see ``merge_logits``. Without training classes, as for
    prediction alone, it is zero-shot CLIP.
    """

    paper: ClassVar[str] = (
        "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021"
    )
    temporal: ClassVar[bool] = False
    starts_as_backbone: ClassVar[bool] = False  # the classifier starts at random
    features_learn: ClassVar[bool] = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        """The prompt of classes other than those of training is the only choice."""

    # CLIP's probes were fitted to still images with L-BFGS; no paper states a recipe for videos, so it is MSTA's
    presets: ClassVar[Mapping[str, Preset]] = {
        name: Preset(method, recipe) for method in [Config()] for name, recipe in RECIPES.items()
    }

    def attach(self) -> Iterable[nn.Module | nn.Parameter]:
        """Build the classifier; the towers get no hooks."""
        self.head: ClassHead | None = None
        if not self.trained_classes:
            return ()
        self.head = ClassHead(self.backbone.spec.video_width, self.trained_classes)
        return (self.head,)

    def merged(self) -> dict[str, Tensor] | None:
        """Return no tensors if this is zero-shot CLIP; a backbone has no place for a classifier."""
        return {} if self.head is None else None

    def forward(self, frames: Tensor, labels: Tensor | None = None) -> Output:
        """Score clips (B,T,3,H,W) by the classifier."""
        if self.head is None:
            return super().forward(frames, labels)
        return class_token_output(self, self.head, frames)
