"""What prompt methods share: learned tokens, the hooks that put them into both towers, texts that leave them room.

Text: positions 1 to b, between the start token and the words; with the causal mask, tokens behind the end token
could not reach it. Video: behind the last patch of every sequence, of a frame or (joint) of a clip.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vlmodels.classifier import prompt
from vlmodels.methods.base import Method, Recipe

if TYPE_CHECKING:
    from vlmodels.backbone import Backbone
    from vlmodels.sites import ClipContext, Tower

# ViFi-CLIP trains with soft targets, and so do the methods that were built on its code.
vifi_recipe = partial(Recipe, crop="multiscale", label_smoothing=0.1, mixup=0.8, cutmix=1.0)

Source = Callable[[], Tensor]  # gives a layer's prompts (b,D)


class Learned(nn.Module):
    """Learned tokens (b,D), drawn from a normal distribution of deviation 0.02 as in ViFi-CLIP."""

    def __init__(self, number: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(0.02 * torch.randn(number, width))

    def forward(self) -> Tensor:
        """The tokens."""
        return self.tokens


def learned_layers(number: int, width: int, layers: Iterable[int]) -> nn.ModuleDict:
    """New tokens for each of these layers, under their numbers."""
    return nn.ModuleDict({str(layer): Learned(number, width) for layer in layers})


def sources(learned: nn.ModuleDict) -> dict[int, Source]:
    """The layers' tokens by layer number."""
    return {int(layer): tokens for layer, tokens in learned.items()}


def add_prompts(backbone: Backbone, tower: Tower, prompts: Mapping[int, Source]) -> None:
    """Give layers, 1-based and without a gap from 1, their prompts; deeper ones pass on what comes out there.

    The first layer's join the embeddings: text prompts get positions as words do, video prompts get none and
    pass ln_pre. Deeper ones replace what the layer before made of its prompts, and enter as they are.
    """
    for layer, source in prompts.items():
        hook = TextPrompts(source) if tower == "text" else VideoPrompts(source, first=layer == 1)
        if layer == 1:
            backbone.add(tower, 0, "embed", hook)
        else:
            backbone.add(tower, layer, "tokens", hook)


class TextPrompts:
    """A hook that puts prompts at positions 1 to b of every text, in the place of what is there."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __call__(self, x: Tensor, _: ClipContext) -> Tensor:
        """Tokens (C,L,D) of the same length."""
        tokens = self.source().to(x.dtype).expand(len(x), -1, -1)
        return torch.cat([x[:, :1], tokens, x[:, 1 + tokens.shape[1] :]], dim=1)


class VideoPrompts:
    """A hook that puts prompts at the end of every sequence, in the place of the layer before's unless ``first``."""

    def __init__(self, source: Source, *, first: bool) -> None:
        self.source, self.first = source, first

    def __call__(self, x: Tensor, _: ClipContext) -> Tensor:
        """Tokens (B*T,1+P+b,D), or (B,1+P*T+b,D) if joint."""
        tokens = self.source().to(x.dtype).expand(len(x), -1, -1)
        kept = x.shape[1] - (0 if self.first else tokens.shape[1])
        return torch.cat([x[:, :kept], tokens], dim=1)


class PromptedMethod(Method):
    """A method whose texts begin with ``slots`` placeholders; without any, class prompts are the template's."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """Number b of prompts in the text tower."""

    def class_prompt(self, name: str) -> str:
        """``X X ... X name.``; the end token stands where it will stand with the prompts in place."""
        return prompt(self.said(name), f"{self._placeholders}{{}}.") if self.slots else super().class_prompt(name)

    def caption_tokens(self, captions: Sequence[str]) -> Tensor:
        """Token ids (N,L) of ``X X ... X caption``; long captions lose their last words, never the end token."""
        return super().caption_tokens([self._placeholders + caption for caption in captions])

    @property
    def _placeholders(self) -> str:
        return "X " * self.slots  # X is one token

    def overflow(self, names: Sequence[str]) -> list[str]:
        """A message if the context has no room for these class names behind the prompts, else nothing."""
        if not self.slots:
            return super().overflow(names)
        spec = self.backbone.spec
        room = spec.context_length - self.slots - 2  # start and end token
        with torch.device("cpu"):  # a run is also planned on the meta device, where ids have no values
            texts = [prompt(self.said(name), "{}.") for name in names]
            ends = self.backbone.tokenizer(texts).argmax(dim=-1).tolist() if texts else []
        long = [name for name, end in zip(names, ends, strict=True) if end - 1 > room]
        if room >= 2 and not long:
            return []
        which = f"; too long: {', '.join(long)}" if long else ""
        return [
            f"{self.slots} prompts leave {max(room, 0)} of the {spec.context_length} tokens of {spec.name}'s context "
            f"to a class name and its full stop{which}; use fewer prompts or shorter names"
        ]


def misfit(setting: str, depth: int, layers: int, where: str) -> list[str]:
    """A message if ``where`` has fewer layers than a setting asks for, else nothing."""
    if depth <= layers:
        return []
    return [f"{setting}={depth} does not fit {where}, which has {layers} layers; use 1 to {layers}, or 0 for all"]
