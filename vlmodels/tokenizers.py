"""Tokenizers of text towers: open_clip's own, and those of Hugging Face from local files or the hub."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from open_clip.tokenizer import SimpleTokenizer

from vlmodels.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

_FILES = ("tokenizer.json", "tokenizer_config.json")  # beside a weight file, as models lie on the hub


class Tokenizer(Protocol):
    """Texts to token ids (C, context length), padded."""

    context_length: int

    def __call__(self, texts: list[str]) -> Tensor:
        """Return token ids (C, context length); longer texts lose their last words."""
        ...


def token_count(tokenizer: Tokenizer, text: str) -> int:
    """Return the number of tokens of a text, with those that the tokenizer adds, however long it is."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return len(tokenizer.ids(text))
    encode: Any = getattr(tokenizer, "encode", None)
    return 0 if encode is None else len(encode(text)) + 2  # start and end token


def first_word(tokenizer: Tokenizer) -> int:
    """Return the place of a text's first word: 1 behind a start token, 0 without one."""
    return tokenizer.first_word if isinstance(tokenizer, HuggingFaceTokenizer) else 1


class WordCounter:
    """Stands in for a tokenizer where nothing is encoded: a token for each word, a start and an end."""

    context_length = 77

    def __call__(self, texts: list[str]) -> Tensor:
        """Raise NotImplementedError: it has no ids."""
        raise NotImplementedError("a word counter has no ids")

    def encode(self, text: str) -> list[int]:
        """Return a number for each word."""
        return list(range(len(text.split())))


class HuggingFaceTokenizer:
    """open_clip's ``HFTokenizer``, loaded when a first text needs it.

    Args:
        source: a folder with its files, or its name on the hub.
        context_length: number of ids per text.
        options: open_clip's options for this model's texts (``clean``, ``strip_sep_token``).
    """

    def __init__(self, source: str, context_length: int, options: Mapping[str, Any]) -> None:
        self.source, self.context_length, self._options = source, context_length, dict(options)

    @functools.cached_property
    def _own(self) -> Any:
        from open_clip.tokenizer import HFTokenizer

        try:
            return HFTokenizer(self.source, context_length=self.context_length, **self._options)
        except ImportError as error:
            raise UserError(
                f"the tokenizer '{self.source}' needs a package that is not installed ({error}); "
                "pip install transformers sentencepiece"
            ) from error
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise UserError(
                f"the tokenizer '{self.source}' is not on this machine and cannot be downloaded ({reason}); put its "
                f"files ({', '.join(_FILES)}) beside the weight file"
            ) from error

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return token ids (C, context length).

        Raises:
            UserError: the tokenizer is neither on this machine nor on the hub.
        """
        ids: Tensor = self._own(list(texts))
        return ids

    def ids(self, text: str) -> list[int]:
        """Return all ids of a text, without padding."""
        found: list[int] = self._own.tokenizer(self._own.clean_fn(text)).input_ids
        return found

    @functools.cached_property
    def first_word(self) -> int:
        """The place of a text's first word."""
        one, other = self.ids("a"), self.ids("video")
        return next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


def tokenizer_of(config: Mapping[str, Any], folder: Path | None) -> Tokenizer:
    """Return the tokenizer of an open_clip model.

    Args:
        config: the model's configuration.
        folder: where its weight file lies; a Hugging Face tokenizer's files there are taken before the hub's.
    """
    text = config["text_cfg"]
    length = int(text.get("context_length", 77))
    name = text.get("hf_tokenizer_name")
    if not name:
        return SimpleTokenizer(context_length=length, **text.get("tokenizer_kwargs", {}))
    local = folder is not None and any((folder / file).is_file() for file in _FILES)
    return HuggingFaceTokenizer(str(folder) if local else str(name), length, text.get("tokenizer_kwargs", {}))
