"""Small files of models on the Hugging Face hub: tokenizers, and configurations of text towers."""

from __future__ import annotations

from pathlib import Path

from vlmodels.errors import UserError

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")  # of which a folder with a tokenizer has one
CONFIG = "config.json"
FILES = (
    *TOKENIZER,
    CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_SECONDS = 10.0


def has_tokenizer(folder: Path) -> bool:
    """Return whether a tokenizer's files lie in a folder."""
    return any((folder / name).is_file() for name in TOKENIZER)


def has_config(folder: Path) -> bool:
    """Return whether a model's configuration lies in a folder."""
    return (folder / CONFIG).is_file()


def files_in(folder: Path) -> tuple[Path, ...]:
    """Return the files of a tokenizer or configuration that lie in a folder."""
    return tuple(folder / name for name in FILES if (folder / name).is_file())


def hub_folder(name: str) -> Path:
    """Return a folder with the files of a model on the hub: those of the cache if it has any, else downloaded.

    What is cached is not asked for again, so that results do not change with the hub.

    Raises:
        UserError: they are not on this machine and cannot be downloaded.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(FILES), local_files_only=True))
        if files_in(folder):
            return folder
    except OSError:  # not cached
        pass
    try:
        HfApi().model_info(name, timeout=_SECONDS)  # which fails at once where a download tries for half a minute
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # of several packages
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise UserError(
            f"the tokenizer and configuration '{name}' of the Hugging Face hub are not on this machine and cannot be "
            f"downloaded ({reason}); put its files ({', '.join((*TOKENIZER, CONFIG))}) beside the weight file"
        ) from error
