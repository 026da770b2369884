"""Two frozen CLIP towers with named sites at which a method may act; open_clip itself stays untouched.

The facade runs the towers itself: embedding, a loop over the frozen blocks, pooling. A layer that has no hooks
and needs no graph calls the block as it is; others run the block's own parts (``vlmodels/sites.py``).

Shape legend, here and in every method: B clips, T frames, N tokens (the class token first), D width of a
tower, E width of the joint space, C classes or texts, L text tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from vlmodels.errors import UserError, nearest
from vlmodels.sites import ClipContext, Hook, Hooks, Site, Tower, run_block

Tokenizer = Callable[[list[str]], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """The plain facts about a backbone; ``weights`` is a pretrained tag, a file path or "" (random)."""

    name: str
    weights: str
    frames: int
    video_layers: int
    video_width: int
    video_heads: int
    text_layers: int
    text_width: int
    text_heads: int
    embed_dim: int
    image_size: tuple[int, int]
    patch: tuple[int, int]
    context_length: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    joint: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch[0], self.image_size[1] // self.patch[1]

    def layers(self, tower: Tower) -> int:
        """Number of blocks of a tower."""
        return self.video_layers if tower == "video" else self.text_layers

    def width(self, tower: Tower) -> int:
        """Width D of a tower."""
        return self.video_width if tower == "video" else self.text_width


@dataclass(frozen=True, slots=True)
class VideoFeatures:
    """What the video tower gives: ``clip`` (B,E) and ``frame`` (B,T,E), not normalised."""

    clip: Tensor
    frame: Tensor
    hidden: Tensor  # the last block's output, (B*T, N, D)

    @property
    def token(self) -> Tensor:
        """Tokens after the last block, before the final norm: (B,T,N,D)."""
        return self.hidden.reshape(*self.frame.shape[:2], *self.hidden.shape[1:])


@dataclass(frozen=True, slots=True)
class TextPrefix:
    """Activations (C,L,D) of some texts after the first ``layers`` frozen blocks."""

    layers: int
    hidden: Tensor


class Backbone(nn.Module):
    """An open_clip CLIP with frozen weights, always in eval mode, and hooks that are not part of its state.

    Args:
        model: a ``CLIP`` or ``CustomTextCLIP`` with a ViT image tower and a causal text tower.
        tokenizer: texts to ``(C, context length)`` ids, zero padded, the end token being the largest id.
        name: model name, for messages and for the adapter's record of what it belongs to.
        weights: pretrained tag or file path; "" if random.
        frames: frames per clip that methods with a fixed number are built for.

    Raises:
        UserError: a tower is of a kind that this facade does not run.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Tokenizer, *, name: str, weights: str = "", frames: int = 8
    ) -> None:
        super().__init__()
        clip: Any = model
        text: Any = getattr(model, "text", model)
        refuse_unknown_towers(clip, text, name)
        self.model = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.spec = describe_towers(clip, text, name=name, weights=weights, frames=frames)
        self._hooks: dict[tuple[str, int], Hooks] = {}
        self._digest: str | None = None
        self.eval()

    @property
    def _video(self) -> Any:
        return self.model.visual

    @property
    def _text(self) -> Any:
        return getattr(self.model, "text", self.model)

    @property
    def logit_scale(self) -> Tensor:
        """What cosines are multiplied by, 1 / temperature; 100 for the published CLIP weights."""
        scale: Tensor = self.model.logit_scale  # type: ignore[assignment]  # a parameter of every CLIP
        return scale.exp()

    @property
    def digest(self) -> str:
        """SHA-256 over name, dtype, shape and bytes of every base tensor, computed once.

        A method that trains base tensors takes it before its first step.
        """
        if self._digest is None:
            sha = hashlib.sha256()
            for name, tensor in sorted(self.model.state_dict().items()):
                sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            self._digest = sha.hexdigest()
        return self._digest

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002 - nn.Module's signature
        """Stay in eval mode: frozen towers have nothing that differs in training."""
        super().train(False)
        return self

    def add(self, tower: Tower, layer: int, site: Site, hook: Hook) -> None:
        """Put ``hook`` at a site of a layer, 1-based; the site "embed" is layer 0.

        Several hooks at one site run in the order in which they came; those of parallel sites are summed.

        Raises:
            UserError: no such site or layer.
        """
        depth = self.spec.layers(tower)
        if site not in get_args(Site):
            raise UserError(f"no site '{site}'{nearest(site, get_args(Site))}; there are {', '.join(get_args(Site))}")
        if (layer == 0) != (site == "embed") or not 0 <= layer <= depth:
            raise UserError(
                f"site '{site}' at layer {layer}: the {tower} tower of {self.spec.name} has layers "
                f"1 to {depth} (and 0 for the site 'embed' only)"
            )
        self._hooks.setdefault((tower, layer), {}).setdefault(site, []).append(hook)

    @property
    def hooked(self) -> bool:
        """Whether any hook is in place."""
        return bool(self._hooks)

    def frozen_layers(self, tower: Tower) -> int:
        """Leading blocks of a tower that no hook and no training reaches: their output needs no graph."""
        stack: Any = self._video if tower == "video" else self._text
        below = [stack.class_embedding, stack.conv1.weight] if tower == "video" else [stack.token_embedding.weight]
        if (tower, 0) in self._hooks or any(p.requires_grad for p in (*below, stack.positional_embedding)):
            return 0
        for index, block in enumerate(stack.transformer.resblocks):
            if (tower, index + 1) in self._hooks or any(p.requires_grad for p in block.parameters()):
                return index
        return len(stack.transformer.resblocks)

    def text_is_frozen(self) -> bool:
        """Whether text features can never change: no hook and no trained parameter in the text tower."""
        text = self._text
        projection = text.text_projection
        head = [*text.ln_final.parameters()]
        head += [*projection.parameters()] if isinstance(projection, nn.Linear) else [projection]
        return self.frozen_layers("text") == self.spec.text_layers and not any(p.requires_grad for p in head)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids (C,L) of texts, cut after the longest one: exact, as no token looks to its right."""
        tokens = self.tokenizer(list(texts))
        return tokens[:, : int(tokens.argmax(dim=-1).max()) + 1].contiguous()

    def encode_video(self, frames: Tensor) -> VideoFeatures:
        """Encode normalised frames (B,T,3,H,W); a clip's feature is the mean of its frames' features.

        Raises:
            UserError: frames of another shape than the backbone takes.
        """
        size = self.spec.image_size
        if frames.ndim != 5 or tuple(frames.shape[2:]) != (3, *size):
            raise UserError(
                f"frames must be (clips, frames, 3, {size[0]}, {size[1]}) for {self.spec.name}, "
                f"not {tuple(frames.shape)}"
            )
        batch, count = frames.shape[:2]
        context = ClipContext(batch, count, self.spec.grid, 0, "video")
        hidden = self._run(self._embed_video(frames.flatten(0, 1), context), None, context)
        frame: Tensor = self._video.ln_post(hidden[:, 0]) @ self._video.proj
        frame = frame.reshape(batch, count, -1)
        return VideoFeatures(clip=frame.mean(dim=1), frame=frame, hidden=hidden)

    def encode_text(self, tokens: Tensor, *, prefix: TextPrefix | None = None, hooked: bool = True) -> Tensor:
        """Encode token ids (C,L), L up to the context length, into features (C,E), not normalised.

        Args:
            tokens: token ids.
            prefix: what ``text_prefix`` gave for the same tokens; the layers that it covers are not rerun.
            hooked: False gives the frozen tower's features, whatever a method has added.
        """
        context = ClipContext(len(tokens), 1, (0, 0), 0, "text")
        text = self._text
        start, hidden = (prefix.layers, prefix.hidden) if prefix else (0, self._embed_text(tokens, context, hooked))
        mask = text.attn_mask[: tokens.shape[1], : tokens.shape[1]]
        hidden = self._run(hidden, mask, context, start=start, hooked=hooked)
        ends: Tensor = text.ln_final(hidden[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=-1)])
        projection = text.text_projection
        features: Tensor = projection(ends) if isinstance(projection, nn.Linear) else ends @ projection
        return features

    @torch.no_grad()
    def text_prefix(self, tokens: Tensor, layers: int) -> TextPrefix:
        """Activations of the frozen tower after its first ``layers`` blocks, without a graph."""
        context = ClipContext(len(tokens), 1, (0, 0), 0, "text")
        mask = self._text.attn_mask[: tokens.shape[1], : tokens.shape[1]]
        hidden = self._embed_text(tokens, context, hooked=False)
        return TextPrefix(layers, self._run(hidden, mask, context, stop=layers, hooked=False))

    def _embed_video(self, frames: Tensor, context: ClipContext) -> Tensor:
        visual = self._video
        x: Tensor = visual.conv1(frames.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        x = x + visual.positional_embedding.to(x.dtype)
        x = self._at("embed", x, context)
        normed: Tensor = visual.ln_pre(x)
        return normed

    def _embed_text(self, tokens: Tensor, context: ClipContext, hooked: bool) -> Tensor:
        text = self._text
        x: Tensor = text.token_embedding(tokens)
        if hooked:
            x = self._at("embed", x, context)
        positions: Tensor = text.positional_embedding[: x.shape[1]]
        return x + positions.to(x.dtype)

    def _at(self, site: Site, x: Tensor, context: ClipContext) -> Tensor:
        for hook in self._hooks.get((context.tower, context.layer), {}).get(site, ()):
            x = hook(x, context)
        return x

    def _run(
        self,
        x: Tensor,
        mask: Tensor | None,
        context: ClipContext,
        *,
        start: int = 0,
        stop: int | None = None,
        hooked: bool = True,
    ) -> Tensor:
        stack: Any = self._video if context.tower == "video" else self._text
        for layer, block in enumerate(list(stack.transformer.resblocks)[start:stop], start + 1):
            hooks = self._hooks.get((context.tower, layer)) if hooked else None
            if hooks or x.requires_grad:
                x = run_block(block, x, mask, hooks or {}, replace(context, layer=layer))
            else:
                x = block(x, attn_mask=mask)
        return x


def refuse_unknown_towers(clip: Any, text: Any, name: str) -> None:
    """Raise UserError unless both towers are of the kinds that this facade runs, naming what is not."""
    problems: list[str] = []
    visual: Any = getattr(clip, "visual", None)
    if not isinstance(visual, VisionTransformer):
        problems.append(f"its image tower is {type(visual).__name__}, not open_clip's VisionTransformer")
    elif visual.attn_pool is not None or visual.pool_type != "tok":
        problems.append("its image tower does not pool by the class token")
    if getattr(text, "attn_mask", None) is None or getattr(text, "cls_emb", None) is not None:
        problems.append(f"its text tower ({type(text).__name__}) is not a plain causal one")
    elif getattr(text, "text_pool_type", getattr(text, "pool_type", None)) != "argmax":
        problems.append("its text tower does not pool at the end token")
    elif text.text_projection is None:
        problems.append("its text tower has no projection")
    blocks = [b for t in (visual, text) if hasattr(t, "transformer") for b in t.transformer.resblocks]
    if not problems and not all(type(block) is ResidualAttentionBlock for block in blocks):
        problems.append("its blocks are not open_clip's standard attention blocks")
    if problems:
        raise UserError(f"backbone '{name}' cannot be adapted: {'; '.join(problems)}")


def describe_towers(clip: Any, text: Any, *, name: str, weights: str, frames: int) -> BackboneSpec:
    """Read the facts of a backbone off its modules."""
    visual = clip.visual
    video_blocks, text_blocks = visual.transformer.resblocks, text.transformer.resblocks
    preprocess = getattr(visual, "preprocess_cfg", {})
    return BackboneSpec(
        name=name,
        weights=weights,
        frames=frames,
        video_layers=len(video_blocks),
        video_width=visual.transformer.width,
        video_heads=video_blocks[0].attn.num_heads,
        text_layers=len(text_blocks),
        text_width=text.transformer.width,
        text_heads=text_blocks[0].attn.num_heads,
        embed_dim=visual.output_dim,
        image_size=tuple(visual.image_size),
        patch=tuple(visual.patch_size),
        context_length=text.context_length,
        mean=tuple(preprocess.get("mean", OPENAI_DATASET_MEAN)),
        std=tuple(preprocess.get("std", OPENAI_DATASET_STD)),
    )
