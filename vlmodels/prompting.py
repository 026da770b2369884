"""Parts of prompt methods: learned tokens, the hooks that insert them, and class texts with room for them.

Text prompts stand before the words, behind the start token if there is one: under a causal mask, the end token does
not see what comes after it. Video prompts stand after the last patch of every sequence (frame, or clip if joint).
"""

# Shapes: B clip, T frame, R token before the patches, P patch, C text, L text token, b prompt, D width of a tower.

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from einops import repeat
from torch import Tensor, nn

from vlmodels.classifier import prompt
from vlmodels.methods.base import Method, Recipe

if TYPE_CHECKING:
    from vlmodels.backbone import Backbone
    from vlmodels.clip_context import ClipContext, Tower

# ViFi-CLIP trains with soft targets, as do the methods that build on its code.
vifi_recipe = partial(Recipe, crop="multiscale", label_smoothing=0.1, mixup=0.8, cutmix=1.0)

PromptSource = Callable[[], Tensor]  # returns a layer's prompts (b,D)


class LearnedPrompts(nn.Module):
    """Learned tokens (b,D), drawn from a normal distribution of deviation 0.02 as in ViFi-CLIP."""

    def __init__(self, number: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(0.02 * torch.randn(number, width))

    def forward(self) -> Tensor:
        """Return the tokens (b,D)."""
        return self.tokens


def learned_prompts(number: int, width: int, layers: Iterable[int]) -> nn.ModuleDict:
    """Create learned tokens for each of these layers, by layer number."""
    return nn.ModuleDict({str(layer): LearnedPrompts(number, width) for layer in layers})


def prompt_sources(learned: nn.ModuleDict) -> dict[int, PromptSource]:
    """Return the layers' tokens by layer number."""
    return {int(layer): tokens for layer, tokens in learned.items()}


def add_prompts(backbone: Backbone, tower: Tower, prompts: Mapping[int, PromptSource]) -> None:
    """Add hooks that insert prompts into layers, counted from 1 without a gap; later layers keep the last ones.

    The first layer's prompts join the embeddings: in the text tower they get positions as words do, in the video tower
    they get none and pass ln_pre. Those of a later layer replace the outputs at the prompts' places, unchanged.
    """
    for layer, source in prompts.items():
        in_text = tower == "text"
        hook = TextPromptHook(source, backbone.first_word) if in_text else VideoPromptHook(source, first=layer == 1)
        if layer == 1:
            backbone.add(tower, 0, "embed", hook)
        else:
            backbone.add(tower, layer, "tokens", hook)


class TextPromptHook:
    """A hook that replaces b tokens of every text by prompts, from place ``start`` on."""

    def __init__(self, source: PromptSource, start: int) -> None:
        self.source, self.start = source, start

    def __call__(self, x: Tensor, _: ClipContext) -> Tensor:
        """Return tokens (C,L,D) of the same length."""
        tokens = repeat(self.source().to(x.dtype), "slot d -> c slot d", c=len(x))
        return torch.cat([x[:, : self.start], tokens, x[:, self.start + tokens.shape[1] :]], dim=1)


class VideoPromptHook:
    """A hook that appends prompts to every sequence; they replace the last b tokens unless ``first``."""

    def __init__(self, source: PromptSource, *, first: bool) -> None:
        self.source, self.first = source, first

    def __call__(self, x: Tensor, _: ClipContext) -> Tensor:
        """Return tokens (B*T,R+P+b,D), or (B,1+P*T+b,D) if joint."""
        tokens = repeat(self.source().to(x.dtype), "slot d -> n slot d", n=x.shape[0])
        kept = x.shape[1] - (0 if self.first else tokens.shape[1])
        return torch.cat([x[:, :kept], tokens], dim=1)


class PromptedMethod(Method):
    """A method whose texts begin with ``slots`` placeholders; with 0 of them, the template makes the class prompts."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """Number b of prompts in the text tower."""

    def class_prompt(self, name: str) -> str:
        """Return ``X X ... X name.``, whose other tokens stand where they do behind the prompts."""
        return (
            prompt(self.name_in_text(name), f"{self._placeholders}{{}}.") if self.slots else super().class_prompt(name)
        )

    def caption_text(self, caption: str) -> str:
        """Return ``X X ... X caption``."""
        return self._placeholders + caption

    @property
    def _placeholders(self) -> str:
        return "X " * self.slots  # X is one token

    def prompt_problems(self, names: Sequence[str]) -> list[str]:
        """Return a message if the text context has no room for these class names behind the prompts."""
        if not self.slots:
            return super().prompt_problems(names)
        spec = self.backbone.spec
        count = self.backbone.count_tokens
        if count(f"{self._placeholders}a") - count("a") != self.slots:
            return [f"the tokenizer of {spec.name} keeps no places for prompts: 'X X' is not two tokens to it"]
        room = spec.context_length - self.slots - count("")
        long = [name for name in names if not self.backbone.fits(self.class_prompt(name))]
        if room >= 2 and not long:
            return []
        too_long = f"; too long: {', '.join(long)}" if long else ""
        return [
            f"{self.slots} prompts leave {max(room, 0)} of the {spec.context_length} tokens of {spec.name}'s context "
            f"to a class name and its full stop{too_long}; use fewer prompts or shorter names"
        ]


def depth_problems(setting: str, depth: int, layers: int, where: str) -> list[str]:
    """Return a message if a setting needs ``depth`` layers and the tower ``where`` has only ``layers``."""
    if depth <= layers:
        return []
    return [f"{setting}={depth} does not fit {where}, which has {layers} layers; use 1 to {layers}, or 0 for all"]
