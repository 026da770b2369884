"""View of text towers that are models of Hugging Face (RoBERTa, XLM-R, mT5, NLLB): frozen, and run as a whole.

Their blocks differ from each other and from CLIP's: norms after the sums (RoBERTa), relative positions (mT5), masks by
padding. So no method acts inside; those that leave the text tower frozen, and full tuning, work.
"""

# Shapes: C text, L text token, E width of the joint space.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vlmodels.families.views import Call, TextView

if TYPE_CHECKING:
    from collections.abc import Callable


class Text(TextView):
    """open_clip's ``HFTextEncoder``."""

    blocks = ()
    context_length = 0
    may_cut = False  # poolers and masks count the padding

    def __init__(self, text: Any) -> None:
        config = text.config
        self._text = text
        self.layers = int(getattr(config, "num_hidden_layers", 0) or getattr(config, "num_layers", 0))
        self.width = int(getattr(config, "hidden_size", 0) or config.d_model)
        self.heads = int(getattr(config, "num_attention_heads", 0) or config.num_heads)
        self.norm = nn.Identity()
        self.words = text.transformer.get_input_embeddings().weight
        self.below = list(text.transformer.parameters())
        self.head = list(text.proj.parameters())
        self.whole_only = f"its text tower is Hugging Face's {config.model_type}, which is run as a whole"

    def whole(self, tokens: Tensor) -> Tensor:
        """Return features (C,E) of token ids (C,L)."""
        if not tokens.is_meta:
            features: Tensor = self._text(tokens)
            return features
        from torch._subclasses.fake_tensor import FakeTensorMode  # late: only costs are counted so

        with FakeTensorMode(allow_non_fake_inputs=True):  # transformers reads masks, and a meta tensor has no values
            shapes: Tensor = self._text(tokens)
        return shapes

    def embed(self, tokens: Tensor, hook: Callable[[Tensor], Tensor]) -> tuple[Tensor, Call]:
        """Raise NotImplementedError: the tower has no parts."""
        raise NotImplementedError(self.whole_only)

    def call(self, length: int) -> Call:  # noqa: ARG002 - every family's
        """Return nothing."""
        return Call()

    def ends(self, tokens: Tensor) -> Tensor:
        """Raise NotImplementedError: poolers read several tokens."""
        raise NotImplementedError(self.whole_only)

    def project(self, x: Tensor) -> Tensor:
        """Raise NotImplementedError: the tower has no parts."""
        raise NotImplementedError(self.whole_only)
