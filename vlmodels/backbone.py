"""Two frozen CLIP towers with named sites at which a method may act; open_clip itself stays untouched.

``Backbone`` runs the towers itself: embedding, a loop over the frozen blocks, pooling. Without hooks and without a
graph it calls a block as a whole; otherwise it runs the block's parts with hooks between them (``vlmodels/sites.py``).
The video tower gets ``B*T`` sequences, one per frame, or, if it is joint (ViCLIP), B sequences of all frames' patches.
"""

# Shapes, here and in every method: B clip, T frame, H W pixel row and column, N token (the class token first), P patch,
# L text token, C class or text, D width of a tower, E width of the joint space.

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from vlmodels import text_cache
from vlmodels.errors import UserError, nearest
from vlmodels.layout import Tokens, joint_sequence, split_tokens
from vlmodels.sites import ClipContext, Hook, Hooks, Site, Tower, run_block
from vlmodels.spec import describe_towers, refuse_unknown_towers

Tokenizer = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class VideoFeatures:
    """Output of the video tower, not normalised.

    ``hidden`` is the last block's output (B*T,N,D), or (B,N,D) if the tower is joint; ``project`` applies the final
    norm and the projection to the joint space.
    """

    hidden: Tensor
    context: ClipContext
    project: Callable[[Tensor], Tensor]

    @cached_property
    def tokens(self) -> Tokens:
        """Tokens after the last block, before the final norm."""
        return split_tokens(self.hidden, self.context)

    @cached_property
    def frame(self) -> Tensor:
        """Features of the frames (B,T,E), whose mean is ``clip``.

        A joint tower has one class token for all frames. There a frame's feature is the clip's plus the difference
        between the frame's mean patch and that of all frames (our choice: no paper reads ViCLIP by frames).
        """
        if not self.context.joint:
            return rearrange(self.project(self.hidden[:, 0]), "(b t) e -> b t e", b=self.context.batch)
        own = self.project(reduce(self.tokens.patches, "b t row col d -> b t d", "mean"))
        return rearrange(self.clip, "b e -> b 1 e") + (own - reduce(own, "b t e -> b 1 e", "mean"))

    @cached_property
    def clip(self) -> Tensor:
        """Features of the clips (B,E): the class token's, averaged over frames if each frame has one."""
        if self.context.joint:
            return self.project(self.hidden[:, 0])
        return reduce(self.frame, "b t e -> b e", "mean")


@dataclass(frozen=True, slots=True)
class TextPrefix:
    """Activations (C,L,D) of some texts after the first ``layers`` frozen blocks."""

    layers: int
    hidden: Tensor


class Backbone(nn.Module):
    """An open_clip CLIP with frozen weights, always in eval mode, and hooks that are not part of its state.

    Args:
        model: a ``CLIP`` or ``CustomTextCLIP`` with a ViT image tower and a causal text tower.
        tokenizer: texts to ``(C, context length)`` ids, padded with zeros, the end token being the largest id.
        name: model name, for messages and for adapter files, which record their backbone.
        weights: pretrained tag or file path; "" if random.
        frames: frames per clip, for methods that are built for a fixed number.

    Raises:
        UserError: a tower is of a kind that ``Backbone`` cannot run.
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
        self.has_method = False
        self._hooks: dict[tuple[str, int], Hooks] = {}
        self._digest: str | None = None
        self._digested_text: list[tuple[int, int]] = []  # the text tower's parameter versions in the digest
        self.eval()

    @property
    def _video(self) -> Any:
        return self.model.visual

    @property
    def _text(self) -> Any:
        return getattr(self.model, "text", self.model)

    def block(self, tower: Tower, layer: int) -> Any:
        """Return a tower's block, counted from 1: open_clip's, with ``ln_1, attn, ln_2, mlp``."""
        stack: Any = self._video if tower == "video" else self._text
        return stack.transformer.resblocks[layer - 1]

    @property
    def video_norm(self) -> nn.LayerNorm:
        """Norm after the video tower's last block (``ln_post``)."""
        norm: nn.LayerNorm = self._video.ln_post
        return norm

    @property
    def text_norm(self) -> nn.LayerNorm:
        """Norm after the text tower's last block (``ln_final``)."""
        norm: nn.LayerNorm = self._text.ln_final
        return norm

    @property
    def logit_scale(self) -> Tensor:
        """Factor of cosines, 1 / temperature; 100 for the published CLIP weights."""
        scale: Tensor = self.model.logit_scale  # type: ignore[assignment]  # a parameter of every CLIP
        return scale.exp()

    @property
    def digest(self) -> str:
        """SHA-256 over name, dtype, shape and bytes of every base tensor, computed once.

        A method that trains base tensors reads it before its first step.
        """
        if self._digest is None:
            self._digested_text = self._text_versions()
            sha = hashlib.sha256()
            for name, tensor in sorted(self.model.state_dict().items()):
                sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            self._digest = sha.hexdigest()
        return self._digest

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002 - nn.Module's signature
        """Stay in eval mode: frozen towers compute the same in training."""
        super().train(False)
        return self

    def add(self, tower: Tower, layer: int, site: Site, hook: Hook) -> None:
        """Add a hook at a site of a layer, counted from 1; the site "embed" is layer 0.

        Several hooks at one site run in the order in which they were added; outputs at parallel sites are summed.

        Raises:
            UserError: the site or the layer does not exist.
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

    def frozen_layers(self, tower: Tower) -> int:
        """Count the first blocks of a tower without hooks and without training: their output needs no graph."""
        stack: Any = self._video if tower == "video" else self._text
        below = [stack.positional_embedding]
        if tower == "video":
            below += [stack.class_embedding, *stack.conv1.parameters(), *stack.ln_pre.parameters()]
            below += [stack.temporal_positional_embedding] if self.spec.joint else []
        else:
            below += [stack.token_embedding.weight]
        if (tower, 0) in self._hooks or any(p.requires_grad for p in below):
            return 0
        for index, block in enumerate(stack.transformer.resblocks):
            if (tower, index + 1) in self._hooks or any(p.requires_grad for p in block.parameters()):
                return index
        return len(stack.transformer.resblocks)

    def text_is_frozen(self) -> bool:
        """Return whether text features cannot change: the text tower has no hook and no parameter that trains."""
        text = self._text
        projection = text.text_projection
        head = [*text.ln_final.parameters()]
        head += [*projection.parameters()] if isinstance(projection, nn.Linear) else [projection]
        return self.frozen_layers("text") == self.spec.text_layers and not any(p.requires_grad for p in head)

    def _text_parameters(self) -> list[nn.Parameter]:
        names = ("visual.", "logit_")
        return [p for name, p in self.model.named_parameters() if not name.startswith(names)]

    def _text_versions(self) -> list[tuple[int, int]]:
        """Return values that change when a parameter is written to or replaced, as in a copy of this backbone."""
        return [(id(p), -1 if p.is_inference() else p._version) for p in self._text_parameters()]  # noqa: SLF001 - no public form

    def _text_is_digested(self) -> bool:
        """Return whether the text tower's weights are those of ``digest``: none trains or was written to since."""
        if any(p.requires_grad or p.is_meta or p.is_inference() for p in self._text_parameters()):
            return False
        _ = self.digest
        return self._digested_text == self._text_versions()

    def _cached(self, name: str, tokens: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``compute(tokens)`` by the text tower without hooks, once in this process for all equal backbones."""
        if not self._text_is_digested():
            return compute(tokens)
        ids = hashlib.sha256(tokens.cpu().numpy().tobytes()).digest()
        scale = self.logit_scale
        key = (self.digest, name, ids, tuple(tokens.shape), scale.dtype, *text_cache.arithmetic(scale.device))
        return text_cache.TEXT_CACHE.get(key, tokens, compute)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return token ids (C,L) of texts, cut after the longest: exact, as no token attends to those after it."""
        tokens = self.tokenizer(list(texts))
        return tokens[:, : int(tokens.argmax(dim=-1).max()) + 1].contiguous()

    def fits(self, text: str) -> bool:
        """Return whether the text context has room for all tokens of a text."""
        encode = getattr(self.tokenizer, "encode", None)  # open_clip's own tokenizers have it
        return encode is None or len(encode(text)) + 2 <= self.spec.context_length  # start and end token

    def encode_video(self, frames: Tensor) -> VideoFeatures:
        """Encode normalised frames (B,T,3,H,W).

        Raises:
            UserError: the frames have another shape.
        """
        size = self.spec.image_size
        if frames.ndim != 5 or tuple(frames.shape[2:]) != (3, *size):
            raise UserError(
                f"frames must be (clips, frames, 3, {size[0]}, {size[1]}) for {self.spec.name}, "
                f"not {tuple(frames.shape)}"
            )
        context = ClipContext(frames.shape[0], frames.shape[1], self.spec.grid, 0, "video", self.spec.joint)
        images = rearrange(frames, "b t c h w -> (b t) c h w")
        hidden = self._run_blocks(self._embed_video(images, context), None, context)
        return VideoFeatures(hidden, context, self._project_video)

    def _project_video(self, x: Tensor) -> Tensor:
        projected: Tensor = self._video.ln_post(x) @ self._video.proj
        return projected

    def encode_text(self, tokens: Tensor, *, prefix: TextPrefix | None = None, hooked: bool = True) -> Tensor:
        """Encode token ids (C,L), L up to the context length, into features (C,E), not normalised.

        Args:
            tokens: token ids.
            prefix: ``text_prefix`` of the same tokens, whose layers then do not run again.
            hooked: False leaves out the hooks of a method: features of the frozen tower.
        """
        return self.pool_text(self.text_states(tokens, prefix=prefix, hooked=hooked), tokens)

    def text_states(self, tokens: Tensor, *, prefix: TextPrefix | None = None, hooked: bool = True) -> Tensor:
        """Return the last block's output (C,L,D) for token ids (C,L), before the final norm; see ``encode_text``."""
        context = ClipContext(len(tokens), 1, (0, 0), 0, "text")
        start, hidden = (prefix.layers, prefix.hidden) if prefix else (0, self._embed_text(tokens, context, hooked))
        mask = self._text.attn_mask[: tokens.shape[1], : tokens.shape[1]]
        return self._run_blocks(hidden, mask, context, start=start, hooked=hooked)

    def pool_text(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Return features (C,E) of texts from their tokens' states (C,L,D): the end token's, normed and projected."""
        text = self._text
        ends: Tensor = text.ln_final(states[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=-1)])
        projection = text.text_projection
        features: Tensor = projection(ends) if isinstance(projection, nn.Linear) else ends @ projection
        return features

    @torch.no_grad()
    def frozen_text(self, tokens: Tensor) -> Tensor:
        """Encode token ids (C,L) as ``encode_text`` without hooks or graph, once in a process (``text_cache``)."""
        return self._cached("features", tokens, lambda rows: self.encode_text(rows, hooked=False))

    @torch.no_grad()
    def text_prefix(self, tokens: Tensor, layers: int) -> TextPrefix:
        """Run the first ``layers`` blocks without hooks or graph, once in a process (``text_cache``)."""
        mask = self._text.attn_mask[: tokens.shape[1], : tokens.shape[1]]

        def compute(rows: Tensor) -> Tensor:
            context = ClipContext(len(rows), 1, (0, 0), 0, "text")
            embedded = self._embed_text(rows, context, hooked=False)
            return self._run_blocks(embedded, mask, context, stop=layers, hooked=False)

        return TextPrefix(layers, self._cached(f"after {layers}", tokens, compute))

    def _embed_video(self, images: Tensor, context: ClipContext) -> Tensor:
        visual = self._video
        patches = visual.conv1(images.to(visual.conv1.weight.dtype))
        x: Tensor = rearrange(patches, "n d row col -> n (row col) d")
        if context.joint:
            x = joint_sequence(visual, x, context)
        else:
            cls = repeat(visual.class_embedding.to(x.dtype), "d -> n 1 d", n=x.shape[0])
            x = torch.cat([cls, x], dim=1)
            x = x + visual.positional_embedding.to(x.dtype)
        x = self._apply_hooks("embed", x, context)
        normed: Tensor = visual.ln_pre(x)
        return normed

    def _embed_text(self, tokens: Tensor, context: ClipContext, hooked: bool) -> Tensor:
        text = self._text
        x: Tensor = text.token_embedding(tokens)
        if hooked:
            x = self._apply_hooks("embed", x, context)
        positions: Tensor = text.positional_embedding[: x.shape[1]]
        return x + positions.to(x.dtype)

    def _apply_hooks(self, site: Site, x: Tensor, context: ClipContext) -> Tensor:
        for hook in self._hooks.get((context.tower, context.layer), {}).get(site, ()):
            x = hook(x, context)
        return x

    def _run_blocks(
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
