"""X-CLIP's video-specific prompts: class features that depend on the video which they are compared with.

Ni et al., Expanding Language-Image Pretrained Models for General Video Recognition, ECCV 2022.
"""

# Shapes: B clip, T frame, ROW COL place of a patch, P patch, C class, D width of the video tower, E of the joint space.

from __future__ import annotations

import torch
from einops import reduce, repeat
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.temporal_adapter import Attention


class VideoPrompts(nn.Module):
    """``F' = F + a * text``, where ``text`` starts as F and goes through layers of cross-attention to the patches.

    Trainable parameters for video width D and joint width E: ``2D + DE + 3E + layers (12 E E + 10 E)``; 6,697,984
    on ViT-B/16.

    Args:
        width: D.
        embed_dim: E.
        heads: number of heads, a divisor of E.
        layers: number of layers, each with cross-attention and MLP.
        weight: initial value of all E entries of a.
    """

    def __init__(self, width: int, embed_dim: int, heads: int, *, layers: int = 2, weight: float = 0.1) -> None:
        super().__init__()
        self.visual_norm = nn.LayerNorm(width)
        # X-CLIP draws from N(0, 1); this keeps the scale of the normed patches
        self.visual_projection = nn.Parameter(width**-0.5 * torch.randn(width, embed_dim))
        self.norm = nn.LayerNorm(embed_dim)
        self.layers = nn.ModuleList(PromptLayer(embed_dim, heads) for _ in range(layers))
        self.weight = nn.Parameter(torch.full((embed_dim,), weight))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, text: Tensor, patches: Tensor) -> Tensor:
        """Return class features (B,C,E) of CLIP's (C,E), not normalised, and the last patches (B,T,ROW,COL,D)."""
        # X-CLIP averages after the projection, which is linear: the same
        seen = reduce(self.visual_norm(patches), "b t row col d -> b (row col) d", "mean")
        visual = self.norm(seen @ self.visual_projection)
        enriched = repeat(text, "c e -> b c e", b=visual.shape[0])
        for layer in self.layers:
            enriched = layer(enriched, visual)
        return text + self.weight * enriched


class PromptLayer(nn.Module):
    """``text + CrossAttn(LN text, visual)``, then ``text + MLP(LN text)``, the MLP four times as wide."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, bias=False)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, text: Tensor, visual: Tensor) -> Tensor:
        """Return texts (B,C,E) after attention to ``visual`` (B,P,E)."""
        text = text + self.attention(self.attention_norm(text), visual)
        hidden = self.widen(self.mlp_norm(text))
        hidden = hidden * functional.sigmoid(1.702 * hidden)  # QuickGELU
        out: Tensor = text + self.narrow(hidden)
        return out
