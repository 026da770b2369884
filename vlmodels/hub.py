"""Small files of models on the Hugging Face hub: tokenizers, and configurations of text towers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vlmodels.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

VOCABULARIES = (  # without one of them, transformers makes a tokenizer that knows no word
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
)
CONFIG = "config.json"
FILES = (
    *VOCABULARIES,
    "tokenizer_config.json",
    CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)
_SECONDS = 10.0


def has_tokenizer(folder: Path) -> bool:
    """Return whether a tokenizer with its words lies in a folder."""
    return any((folder / name).is_file() for name in VOCABULARIES)


def has_config(folder: Path) -> bool:
    """Return whether a model's configuration lies in a folder."""
    return (folder / CONFIG).is_file()


def files_in(folder: Path) -> tuple[Path, ...]:
    """Return the files of a tokenizer or configuration that lie in a folder."""
    return tuple(folder / name for name in FILES if (folder / name).is_file())


def hub_folder(name: str, holds: Callable[[Path], bool]) -> Path:
    """Return a folder with the files of a model on the hub: those of the cache if it ``holds`` them, else downloaded.

    What is cached is not asked for again, so that results do not change with the hub. A cache may have a part alone:
    transformers fetches a model's configuration without its tokenizer.

    Raises:
        UserError: they are not on this machine and cannot be downloaded.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(FILES), local_files_only=True))
        if holds(folder):
            return folder
    except OSError:  # not cached
        pass
    try:
        HfApi().model_info(name, timeout=_SECONDS)  # which fails at once where a download tries for half a minute
        folder = Path(snapshot_download(name, allow_patterns=list(FILES)))
        if holds(folder):
            return folder
        reason = f"the hub has {', '.join(file.name for file in files_in(folder)) or 'none of them'}"
        cause = None
    except Exception as error:  # noqa: BLE001 - of several packages
        reason, cause = str(error).strip().partition("\n")[0][:200] or type(error).__name__, error
    raise UserError(
        f"the tokenizer and configuration '{name}' of the Hugging Face hub are not on this machine and cannot be "
        f"downloaded ({reason}); put its files (tokenizer.json, tokenizer_config.json, {CONFIG}) beside the weight file"
    ) from cause
