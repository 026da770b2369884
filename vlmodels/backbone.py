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
from typing import TYPE_CHECKING, get_args

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from vlmodels import text_cache
from vlmodels.clip_context import ClipContext, Tower
from vlmodels.errors import UserError, nearest
from vlmodels.families import view_towers
from vlmodels.layout import Tokens, split_tokens
from vlmodels.picture_statistics import OWN
from vlmodels.sites import Hook, Hooks, Site, run_block
from vlmodels.spec import describe_towers
from vlmodels.tokenizers import Tokenizer, first_word, token_count

if TYPE_CHECKING:
    from vlmodels.families.views import BlockView, Call, VideoView


@dataclass(frozen=True)
class VideoFeatures:
    """Output of the video tower, not normalised.

    ``hidden`` is the last block's output (B*T,N,D), or (B,N,D) if the tower is joint; ``tower`` pools and projects.
    """

    hidden: Tensor
    context: ClipContext
    tower: VideoView

    @cached_property
    def tokens(self) -> Tokens:
        """Tokens after the last block, before the final norm."""
        return split_tokens(self.hidden, self.context)

    @cached_property
    def pooled(self) -> Tensor:
        """The pooled token (B,F,D), normed, before the projection; F is T, or 1 if the tower is joint.

        It is what papers read as the class token, see ``VideoView``. Tokens that methods appended are not pooled.
        """
        rows, columns = self.context.grid
        own = self.hidden[:, : self.context.prefix + rows * columns] if not self.context.joint else self.hidden
        return rearrange(self.tower.pool(own), "(b f) d -> b f d", b=self.context.batch)

    @cached_property
    def mean_token(self) -> Tensor:
        """One token (B,D) per clip: the norm of the mean class token, which some classifiers read.

        In towers that do not pool by the class token alone, it is the mean of ``pooled``.
        """
        if not self.tower.reads_class_token:
            return reduce(self.pooled, "b f d -> b d", "mean")
        mean: Tensor = self.tower.norm(reduce(self.tokens.prefix[:, :, 0], "b f d -> b d", "mean"))
        return mean

    @cached_property
    def frame(self) -> Tensor:
        """Features of the frames (B,T,E), whose mean is ``clip``.

        A joint tower has one class token for all frames. There a frame's feature is the clip's plus the difference
        between the frame's mean patch and that of all frames (our choice: no paper reads ViCLIP by frames).
        """
        if not self.context.joint:
            return self.tower.project(self.pooled)
        patches = self.tower.norm(reduce(self.tokens.patches, "b t row col d -> b t d", "mean"))
        own = self.tower.project(patches)
        return rearrange(self.clip, "b e -> b 1 e") + (own - reduce(own, "b t e -> b 1 e", "mean"))

    @cached_property
    def clip(self) -> Tensor:
        """Features of the clips (B,E): the class token's, averaged over frames if each frame has one."""
        if self.context.joint:
            return self.tower.project(self.pooled)[:, 0]
        return reduce(self.frame, "b t e -> b e", "mean")


@dataclass(frozen=True, slots=True)
class TextPrefix:
    """Activations (C,L,D) of some texts after the first ``layers`` frozen blocks."""

    layers: int
    hidden: Tensor


class Backbone(nn.Module):
    """An open_clip CLIP with frozen weights, always in eval mode, and hooks that are not part of its state.

    Args:
        model: a ``CLIP`` or ``CustomTextCLIP`` whose towers are of a known family (``vlmodels/families``).
        tokenizer: texts to ``(C, context length)`` ids.
        name: model name, for messages and for adapter files, which record their backbone.
        weights: pretrained tag or file path; "" if random.
        frames: frames per clip, for methods that are built for a fixed number.
        statistics: the name of the model's mean and deviation of colours, which adapter files record.

    Raises:
        UserError: a tower is of a kind that ``Backbone`` cannot run.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        name: str,
        weights: str = "",
        frames: int = 8,
        statistics: str = OWN,
    ) -> None:
        super().__init__()
        self._video, self._text = view_towers(model, name)
        self.model = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.spec = describe_towers(
            model,
            self._video,
            self._text,
            name=name,
            weights=weights,
            frames=frames,
            context_length=self._text.context_length or tokenizer.context_length,
            statistics=statistics,
        )
        self.has_method = False
        self._hooks: dict[tuple[str, int], Hooks] = {}
        self._digest: str | None = None
        self._digested_text: list[tuple[int, int]] = []  # the text tower's parameter versions in the digest
        self.eval()

    def block(self, tower: Tower, layer: int) -> BlockView:
        """Return a tower's block, counted from 1, with the same names in every family."""
        return (self._video if tower == "video" else self._text).blocks[layer - 1]

    @property
    def video_norm(self) -> nn.Module:
        """Norm after the video tower's last block, or after its pooling."""
        return self._video.norm

    @property
    def reads_class_token(self) -> bool:
        """Whether the video tower pools by its class token alone."""
        return self._video.reads_class_token

    @property
    def text_norm(self) -> nn.Module:
        """Norm after the text tower's last block."""
        return self._text.norm

    @property
    def word_embeddings(self) -> nn.Parameter:
        """The text tower's table of words."""
        return self._text.words

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
            UserError: the site or the layer does not exist, or methods cannot act in this tower.
        """
        depth = self.spec.layers(tower)
        if site not in get_args(Site):
            raise UserError(f"no site '{site}'{nearest(site, get_args(Site))}; there are {', '.join(get_args(Site))}")
        if (layer == 0) != (site == "embed") or not 0 <= layer <= depth:
            raise UserError(
                f"site '{site}' at layer {layer}: the {tower} tower of {self.spec.name} has layers "
                f"1 to {depth} (and 0 for the site 'embed' only)"
            )
        if tower == "text" and self._text.whole_only:
            raise UserError(f"{self.spec.name} cannot be adapted in its text tower: {self._text.whole_only}")
        self._hooks.setdefault((tower, layer), {}).setdefault(site, []).append(hook)

    def frozen_layers(self, tower: Tower) -> int:
        """Count the first blocks of a tower without hooks and without training: their output needs no graph."""
        view = self._video if tower == "video" else self._text
        if (tower, 0) in self._hooks or any(p.requires_grad for p in view.below):
            return 0
        for index, block in enumerate(view.blocks):
            if (tower, index + 1) in self._hooks or any(p.requires_grad for p in block.module.parameters()):
                return index
        return self.spec.layers(tower)

    def text_is_frozen(self) -> bool:
        """Return whether text features cannot change: the text tower has no hook and no parameter that trains."""
        trains = any(p.requires_grad for p in self._text.head)
        return self.frozen_layers("text") == self.spec.text_layers and not trains

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
        """Return token ids (C,L) of texts; if no token attends to those after it, cut after the longest: exact."""
        tokens = self.tokenizer(list(texts))
        if not self._text.may_cut:
            return tokens
        return tokens[:, : int(self._text.ends(tokens).max()) + 1].contiguous()

    def text_ends(self, tokens: Tensor) -> Tensor:
        """Return the place (C,) of the token that stands for each text (C,L)."""
        return self._text.ends(tokens)

    @property
    def first_word(self) -> int:
        """The place of a text's first word: 1 behind a start token, 0 without one."""
        return first_word(self.tokenizer)

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, the tokenizer's own included, however long it is."""
        return token_count(self.tokenizer, text)

    def fits(self, text: str) -> bool:
        """Return whether the text context has room for all tokens of a text."""
        return self.count_tokens(text) <= self.spec.context_length

    def encode_video(self, frames: Tensor, *, hooked: bool = True) -> VideoFeatures:
        """Encode normalised frames (B,T,3,H,W).

        Args:
            frames: clips.
            hooked: False leaves out the hooks of a method: features of the frozen tower.

        Raises:
            UserError: the frames have another shape.
        """
        size = self.spec.image_size
        if frames.ndim != 5 or tuple(frames.shape[2:]) != (3, *size):
            raise UserError(
                f"frames must be (clips, frames, 3, {size[0]}, {size[1]}) for {self.spec.name}, "
                f"not {tuple(frames.shape)}"
            )
        spec = self.spec
        batch, time = frames.shape[:2]
        context = ClipContext(batch, time, spec.grid, 0, "video", joint=spec.joint, prefix=spec.prefix)
        images = rearrange(frames, "b t c h w -> (b t) c h w")
        x, call = self._video.embed(images, context, lambda x: self._apply_hooks("embed", x, context) if hooked else x)
        return VideoFeatures(self._run_blocks(x, call, context, hooked=hooked), context, self._video)

    def encode_text(self, tokens: Tensor, *, prefix: TextPrefix | None = None, hooked: bool = True) -> Tensor:
        """Encode token ids (C,L), L up to the context length, into features (C,E), not normalised.

        Args:
            tokens: token ids.
            prefix: ``text_prefix`` of the same tokens, whose layers then do not run again.
            hooked: False leaves out the hooks of a method: features of the frozen tower.
        """
        if self._text.whole_only:
            return self._text.whole(tokens)
        return self.pool_text(self.text_states(tokens, prefix=prefix, hooked=hooked), tokens)

    def text_states(self, tokens: Tensor, *, prefix: TextPrefix | None = None, hooked: bool = True) -> Tensor:
        """Return the last block's output (C,L,D) for token ids (C,L), before the final norm; see ``encode_text``.

        Raises:
            UserError: the text tower can only be run as a whole.
        """
        if self._text.whole_only:
            raise UserError(f"{self.spec.name} has no states of words to read: {self._text.whole_only}")
        context = ClipContext(len(tokens), 1, (0, 0), 0, "text")
        if prefix:
            call = self._text.call(tokens.shape[1])
            return self._run_blocks(prefix.hidden, call, context, start=prefix.layers, hooked=hooked)
        return self._run_blocks(*self._embed_text(tokens, context, hooked), context, hooked=hooked)

    def pool_text(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Return features (C,E) of texts from their tokens' states (C,L,D): the end token's, normed and projected."""
        rows = torch.arange(len(tokens), device=tokens.device)
        return self._text.project(self._text.norm(states[rows, self._text.ends(tokens)]))

    @torch.no_grad()
    def frozen_text(self, tokens: Tensor) -> Tensor:
        """Encode token ids (C,L) as ``encode_text`` without hooks or graph, once in a process (``text_cache``)."""
        return self._cached("features", tokens, lambda rows: self.encode_text(rows, hooked=False))

    @torch.no_grad()
    def text_prefix(self, tokens: Tensor, layers: int) -> TextPrefix:
        """Run the first ``layers`` blocks without hooks or graph, once in a process (``text_cache``)."""

        def compute(rows: Tensor) -> Tensor:
            context = ClipContext(len(rows), 1, (0, 0), 0, "text")
            return self._run_blocks(*self._embed_text(rows, context, hooked=False), context, stop=layers, hooked=False)

        return TextPrefix(layers, self._cached(f"after {layers}", tokens, compute))

    def _embed_text(self, tokens: Tensor, context: ClipContext, hooked: bool) -> tuple[Tensor, Call]:
        return self._text.embed(tokens, lambda x: self._apply_hooks("embed", x, context) if hooked else x)

    def _apply_hooks(self, site: Site, x: Tensor, context: ClipContext) -> Tensor:
        for hook in self._hooks.get((context.tower, context.layer), {}).get(site, ()):
            x = hook(x, context)
        return x

    def _run_blocks(
        self,
        x: Tensor,
        call: Call,
        context: ClipContext,
        *,
        start: int = 0,
        stop: int | None = None,
        hooked: bool = True,
    ) -> Tensor:
        view = self._video if context.tower == "video" else self._text
        for layer, block in enumerate(view.blocks[start:stop], start + 1):
            hooks = self._hooks.get((context.tower, layer)) if hooked else None
            out = None if hooks or x.requires_grad else block.whole(x, call)
            x = run_block(block, x, call, hooks or {}, replace(context, layer=layer)) if out is None else out
        return x
