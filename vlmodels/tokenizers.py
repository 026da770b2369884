"""Tokenizers of text towers: open_clip's own, and those of Hugging Face from local files or the hub."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer

from vlmodels.errors import UserError
from vlmodels.hub import files_in, has_tokenizer, hub_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


_LEAST = 0.9  # share of a model's words that its tokenizer knows: CLIPA's 32,000 are read by BERT's 30,522


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
    """open_clip's ``HFTokenizer``, loaded when a first text needs it; transformers is imported for it alone.

    Args:
        source: a folder with its files, or its name on the hub.
        context_length: number of ids per text.
        options: open_clip's options for this model's texts (``clean``, ``strip_sep_token``).
        words: number of words that the model knows; 0 if unknown.
    """

    def __init__(self, source: str | Path, context_length: int, options: Mapping[str, Any], words: int = 0) -> None:
        self.source, self.context_length, self._options, self._words = source, context_length, dict(options), words

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files; none if they are the hub's and no text was needed yet."""
        return files_in(self._folder) if isinstance(self.source, Path) or "_folder" in vars(self) else ()

    @functools.cached_property
    def _folder(self) -> Path:
        return self.source if isinstance(self.source, Path) else hub_folder(self.source, has_tokenizer)

    @functools.cached_property
    def _own(self) -> Any:
        from open_clip.tokenizer import HFTokenizer

        folder, here = str(self._folder), {"local_files_only": True, "trust_remote_code": False}
        try:
            with torch.device("cpu"):  # not that of shapes alone, whatever transformers makes when it is imported
                made = HFTokenizer(folder, context_length=self.context_length, **self._options, **here)
        except ImportError as error:
            raise UserError(
                f"the tokenizer in {folder} needs a package that is not installed ({error}); "
                "pip install transformers sentencepiece"
            ) from error
        except Exception as error:  # tokenizers in Rust raise many kinds for damaged files
            reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            raise UserError(
                f"the tokenizer in {folder} cannot be read ({reason}); download its files again "
                f"({', '.join(path.name for path in files_in(self._folder))})"
            ) from error
        known = len(made.tokenizer)
        if known < _LEAST * self._words:
            raise UserError(
                f"the tokenizer in {folder} knows {known:,} words, of the {self._words:,} of the model: it is another "
                "model's, or a part of its files; put the model's own files there"
            )
        return made

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return token ids (C, context length).

        Raises:
            UserError: the tokenizer is neither on this machine nor on the hub, or is not that of the model.
        """
        ids: Tensor = self._own(list(texts))
        if self._words and not ids.is_meta and ids.numel() and int(ids.max()) >= self._words:
            raise UserError(
                f"the tokenizer in {self._folder} has more than the {self._words} words that the model knows: it is "
                "another model's; put the model's own files there"
            )
        return ids

    def ids(self, text: str) -> list[int]:
        """Return all ids of a text, without padding and however many."""
        found: list[int] = self._own.tokenizer(self._own.clean_fn(text), verbose=False).input_ids
        return found

    @functools.cached_property
    def first_word(self) -> int:
        """The place of a text's first word."""
        marks: list[int] = self._own.tokenizer("a", return_special_tokens_mask=True).special_tokens_mask
        return marks.index(0)


def tokenizer_of(config: Mapping[str, Any], folder: Path | None, words: int = 0) -> Tokenizer:
    """Return the tokenizer of an open_clip model.

    Args:
        config: the model's configuration.
        folder: where a Hugging Face tokenizer's files are looked for before the hub, and no network is tried then.
        words: number of words that the model knows; 0 if unknown.
    """
    text = config["text_cfg"]
    length = int(text.get("context_length", 77))
    name = text.get("hf_tokenizer_name")
    if not name:
        own: Tokenizer = SimpleTokenizer(context_length=length, **text.get("tokenizer_kwargs", {}))
        return own
    source = folder if folder is not None and has_tokenizer(folder) else str(name)
    return HuggingFaceTokenizer(source, length, text.get("tokenizer_kwargs", {}), words)


def files_of(tokenizer: Tokenizer) -> tuple[Path, ...]:
    """Return the files that a tokenizer was read from; none for open_clip's own, which is in its package."""
    return tokenizer.files if isinstance(tokenizer, HuggingFaceTokenizer) else ()


def hub_name(backbone: str) -> str:
    """Return the name of a backbone's tokenizer on the Hugging Face hub; "" if it is open_clip's own."""
    config = open_clip.get_model_config(backbone) or {"text_cfg": {}}
    return str(config["text_cfg"].get("hf_tokenizer_name") or "")
