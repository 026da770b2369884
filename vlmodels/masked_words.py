"""M2-CLIP's masked words: class prompts with some words hidden, and the head that predicts them from a video.

Wang et al., A Multimodal, Multi-Task Adapting Framework for Video Action Recognition, AAAI 2024; [C] is its release.
The units are whole words between blanks, not BPE pieces.
"""

# Shapes: B clip, T frame, L text token, V word of the vocabulary, D width of the text tower, E of the joint space.

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.classifier import prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlmodels.backbone import Backbone
    from vlmodels.families.open_clip_towers import Block

MASK = "mask"  # replaces a hidden word: a plain word, as CLIP has no mask token
MASK_RATE = 0.2  # the part of a prompt's words that is hidden
UNLABELLED = -100
_PUNCTUATION = "()[],."  # around words; apostrophes within them stay


class WordMasker:
    """A generator of class prompts in which random words are hidden.

    Args:
        names: classes; ``vocabulary`` numbers the words of their prompts in alphabetical order.
        template: class prompt with one ``{}``.
        template_words: whether the template's own words may be hidden too.
    """

    def __init__(self, names: Sequence[str], template: str, *, template_words: bool) -> None:
        self.template, self.template_words = template, template_words
        words = {vocabulary_form(word) for name in names for word in prompt(name, template).split()} - {""}
        self.vocabulary = {word: number for number, word in enumerate(sorted(words))}
        self._pieces: dict[str, int] = {}

    def __call__(self, names: Sequence[str], backbone: Backbone) -> tuple[Tensor, Tensor]:
        """Return token ids (B,L) of the prompts of ``names``, each with some words hidden, and labels (B,L).

        A label is the hidden word's number at a mask, and -100 elsewhere. The words are drawn from torch's default
        generator. A prompt longer than the context is cut, together with its labels.
        """
        masked = [self._hide(name) for name in names]
        texts = [" ".join(words) for words, _ in masked]
        tokens = backbone.tokenize(texts)
        labels = torch.full_like(tokens, UNLABELLED)
        for row, (words, hidden) in enumerate(masked):
            position = backbone.first_word
            end = min(backbone.count_tokens(texts[row]), tokens.shape[1]) - 1  # of the end token
            for place, word in enumerate(words):
                if place in hidden and position < end:
                    labels[row, position] = hidden[place]
                position += self._length(word, backbone, first=place == 0)
        return tokens, labels

    def _hide(self, name: str) -> tuple[list[str], dict[int, int]]:
        """Return the prompt's words with masks, and the number of the hidden word at each masked place."""
        words = prompt(name, self.template).lower().split()
        first, last = 0, len(words)
        if not self.template_words:
            lead = self.template.partition("{}")[0]
            first, last = len(f"{lead}x".split()) - 1, len(prompt(name, f"{lead}{{}}").split())
        known = [place for place in range(first, last) if vocabulary_form(words[place]) in self.vocabulary]
        count = max(1, round(MASK_RATE * (last - first)))
        chosen = [known[index] for index in torch.randperm(len(known))[:count].tolist()]
        hidden = {place: self.vocabulary[vocabulary_form(words[place])] for place in chosen}
        return [MASK if place in hidden else word for place, word in enumerate(words)], hidden

    def _length(self, word: str, backbone: Backbone, *, first: bool) -> int:
        """Return the number of tokens of a text's first word, or of one behind a blank; no token spans a blank."""
        before, text = ("", word) if first else (MASK, f"{MASK} {word}")  # Gemma's pieces have the blank before them
        if text not in self._pieces:
            self._pieces[text] = backbone.count_tokens(text) - backbone.count_tokens(before)
        return self._pieces[text]


def vocabulary_form(word: str) -> str:
    """Return a word in lower case and without the punctuation around it, as in the vocabulary."""
    return word.lower().strip(_PUNCTUATION)


def word_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (B,L,V) over the labelled positions (B,L); 0 if there are none."""
    by_position = rearrange(logits, "b l v -> (b l) v").float()
    total = functional.cross_entropy(by_position, rearrange(labels, "b l -> (b l)"), reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)


class MaskedWords(nn.Module):
    """Cross-modal masked language modelling (eq. 12): the last text block run once more, with the frames as context.

    The block is the text tower's frozen one; ``adapter`` holds adapters for this second run, by place ("pre_attn",
    "pre_mlp"). The head is BERT's.
    """

    def __init__(self, width: int, words: int, adapter: nn.ModuleDict) -> None:
        super().__init__()
        self.adapter = adapter
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12), nn.Linear(width, words)
        )
        for part in self.head:
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def forward(self, states: Tensor, frames: Tensor, block: Block, norm: nn.Module) -> Tensor:
        """Return logits (B,L,V) of the words at each position.

        Args:
            states: states of the text tokens (B,L,D), before the final norm.
            frames: frame features (B,T,E). In the published CLIPs E = D; else they are cut or padded with zeros (ours).
            block: the text tower's last block.
            norm: the text tower's final norm, which [C] has and eq. 12 leaves out.
        """
        z = self._adapt("pre_attn", states)
        context = block.norm1(functional.pad(frames, (0, z.shape[-1] - frames.shape[-1])))
        z = self._adapt("pre_mlp", z + block.scale1(block.attend(block.norm1(z), context)))
        z = z + block.scale2(block.mlp(block.norm2(z)))
        logits: Tensor = self.head(norm(z))
        return logits

    def _adapt(self, place: str, z: Tensor) -> Tensor:
        adapted: Tensor = self.adapter[place](z) if place in self.adapter else z
        return adapted
