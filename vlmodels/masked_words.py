"""M2-CLIP's masked words: class prompts in which some words are hidden, and the head that guesses them from a video.

Wang et al., A Multimodal, Multi-Task Adapting Framework for Video Action Recognition, AAAI 2024; [C] is its release.
The units are whole words between blanks, not BPE pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmodels.classifier import prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MASK = "mask"  # what stands for a hidden word: a plain word, as CLIP has no token for it
RATE = 0.2  # of a prompt's words that are hidden
UNLABELLED = -100
_PUNCTUATION = "()[],."  # around words; apostrophes within them stay


class WordMasker:
    """Hides words of the prompts of classes.

    Args:
        names: classes whose prompts' words can be guessed; ``vocabulary`` numbers them in alphabetical order.
        template: class prompt with one ``{}``.
        template_words: whether the template's own words are hidden too.
    """

    def __init__(self, names: Sequence[str], template: str, *, template_words: bool) -> None:
        self.template, self.template_words = template, template_words
        words = {bare(word) for name in names for word in prompt(name, template).split()} - {""}
        self.vocabulary = {word: number for number, word in enumerate(sorted(words))}
        self._pieces: dict[str, int] = {}

    def __call__(self, names: Sequence[str], tokenize: Callable[[Sequence[str]], Tensor]) -> tuple[Tensor, Tensor]:
        """Token ids (B,L) of the prompts of ``names``, each with some words hidden, and labels (B,L).

        A label is the hidden word's number where the mask stands, and -100 elsewhere. Draws from torch's default
        generator. A prompt beyond the context is cut, with the labels there.
        """
        drawn = [self._hide(name) for name in names]
        tokens = tokenize([" ".join(words) for words, _ in drawn])
        labels = torch.full_like(tokens, UNLABELLED)
        for row, (words, hidden) in enumerate(drawn):
            position, end = 1, int(tokens[row].argmax())  # between the start and the end token
            for place, word in enumerate(words):
                if place in hidden and position < end:
                    labels[row, position] = hidden[place]
                position += self._length(word, tokenize)
        return tokens, labels

    def _hide(self, name: str) -> tuple[list[str], dict[int, int]]:
        """The prompt's words, and the numbers of those that are now hidden by their places."""
        words = prompt(name, self.template).lower().split()
        first, last = 0, len(words)
        if not self.template_words:
            lead = self.template.partition("{}")[0]
            first, last = len(f"{lead}x".split()) - 1, len(prompt(name, f"{lead}{{}}").split())
        known = [place for place in range(first, last) if bare(words[place]) in self.vocabulary]
        count = max(1, round(RATE * (last - first)))
        chosen = [known[index] for index in torch.randperm(len(known))[:count].tolist()]
        hidden = {place: self.vocabulary[bare(words[place])] for place in chosen}
        return [MASK if place in hidden else word for place, word in enumerate(words)], hidden

    def _length(self, word: str, tokenize: Callable[[Sequence[str]], Tensor]) -> int:
        """How many tokens a word has; no token reaches over a blank."""
        if word not in self._pieces:
            self._pieces[word] = int(tokenize([word])[0].argmax()) - 1
        return self._pieces[word]


def bare(word: str) -> str:
    """A word as the vocabulary has it: in small letters, without the punctuation around it."""
    return word.lower().strip(_PUNCTUATION)


def word_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B,L,V) over the labelled positions of (B,L); 0 if there are none."""
    total = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)


class MaskedWords(nn.Module):
    """Cross-modal masked language modelling (eq. 12): the last text block run once more, with the frames as context.

    The block itself is the frozen one that the text tower has; ``adapter`` are its own, by place ("pre_attn",
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

    def forward(self, states: Tensor, frames: Tensor, block: Any, norm: nn.LayerNorm) -> Tensor:
        """Logits (B,L,V).

        Args:
            states: of the text tokens (B,L,D), before the final norm.
            frames: features (B,T,E). In the published CLIPs E = D; else they are cut or filled with zeros (ours).
            block: the text tower's last.
            norm: the text tower's final one, which eq. 12 leaves out ([C]).
        """
        z = self._adapt("pre_attn", states)
        context = block.ln_1(functional.pad(frames, (0, z.shape[-1] - frames.shape[-1])))
        z = self._adapt("pre_mlp", z + block.ls_1(block.attention(block.ln_1(z), context, context)))
        z = z + block.ls_2(block.mlp(block.ln_2(z)))
        logits: Tensor = self.head(norm(z))
        return logits

    def _adapt(self, place: str, z: Tensor) -> Tensor:
        adapted: Tensor = self.adapter[place](z) if place in self.adapter else z
        return adapted
