"""The toy CLIP: a tiny model of open_clip parts with weights in this package, for demos and tests without network.

It was pretrained on drawn still frames only (``pipelines/toyworld/pretrain.py``): it knows appearance, but not motion.
Its weight file holds the token embeddings of its training words; all others are zero after loading.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vlmodels.errors import UserError
from vlmodels.paths import is_file
from vlmodels.weights import not_finite

if TYPE_CHECKING:
    from collections.abc import Iterable

TOY_WEIGHTS = Path(__file__).parent / "assets" / "toy_clip.safetensors"
TOY_CONFIG: dict[str, Any] = {  # the shape of open_clip's model_configs/*.json
    "embed_dim": 128,
    "vision_cfg": {"image_size": 48, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4},
}
_TABLE = "token_embedding.weight"


@functools.cache
def toy_tokenizer() -> SimpleTokenizer:
    """Return open_clip's tokenizer with the toy CLIP's context length; built once, as that is slow."""
    return SimpleTokenizer(context_length=TOY_CONFIG["text_cfg"]["context_length"])


def build_toy_clip(weights: Path | None = TOY_WEIGHTS) -> CLIP:
    """Build the toy CLIP; ``weights=None`` leaves it random, by torch's seed.

    Raises:
        UserError: the weight file is missing, unreadable, or of another model.
    """
    model = CLIP(
        embed_dim=TOY_CONFIG["embed_dim"],
        vision_cfg=CLIPVisionCfg(**TOY_CONFIG["vision_cfg"]),
        text_cfg=CLIPTextCfg(**TOY_CONFIG["text_cfg"]),
    )
    if weights is not None:
        state, token_ids = _read(weights)
        table = torch.zeros_like(model.token_embedding.weight)
        if state[_TABLE].shape[1:] == table.shape[1:]:
            table[torch.tensor(token_ids)] = state[_TABLE].float()
            state[_TABLE] = table
        expected = {name: value.shape for name, value in model.state_dict().items()}
        if {name: value.shape for name, value in state.items()} != expected:
            raise UserError(f"{weights} does not hold the toy CLIP's tensors; remake it with {_REMEDY}")
        if wrong := not_finite(state):
            raise UserError(f"{weights} {wrong}; remake it with {_REMEDY}")
        model.load_state_dict({name: value.float() for name, value in state.items()})
    return model


_REMEDY = "python -m pipelines.toyworld.pretrain"


def _read(weights: Path) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Read the tensors, and the token ids of the rows of the token table."""
    if not is_file(weights):
        raise UserError(f"no toy CLIP weights at {weights}; make them with {_REMEDY}")
    try:
        with safe_open(weights, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            token_ids = json.loads((file.metadata() or {}).get("token_ids", "null"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{weights} is not a toy CLIP weight file ({error}); remake it with {_REMEDY}") from error
    if token_ids is None:
        raise UserError(
            f"{weights} is not a toy CLIP weight file: its metadata lacks 'token_ids', the words of its token table; "
            f"remake it with {_REMEDY}"
        )
    words = TOY_CONFIG["text_cfg"]["vocab_size"]
    known = isinstance(token_ids, list) and all(type(i) is int and 0 <= i < words for i in token_ids)
    if not known or _TABLE not in state or state[_TABLE].shape[:1] != (len(token_ids),):
        raise UserError(f"{weights} does not hold the toy CLIP's token rows; remake it with {_REMEDY}")
    return state, token_ids


def save_toy_clip(model: CLIP, weights: Path, *, token_ids: Iterable[int], recipe: dict[str, Any]) -> None:
    """Write ``model`` in fp16 with the rows ``token_ids`` of its token table and ``recipe`` as metadata."""
    rows = sorted(set(token_ids))
    state = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    state[_TABLE] = state[_TABLE][rows].contiguous()
    metadata = {"token_ids": json.dumps(rows), "config": json.dumps(TOY_CONFIG), "recipe": json.dumps(recipe)}
    weights.parent.mkdir(parents=True, exist_ok=True)
    partial = weights.with_name(weights.name + ".partial")
    save_file(state, partial, metadata=metadata)
    partial.chmod(0o644)  # safetensors makes it private
    partial.replace(weights)


def unknown_words(text: str, weights: Path = TOY_WEIGHTS) -> list[str]:
    """Return the words of ``text`` that the toy CLIP was not trained on, in order of appearance, each once."""
    with safe_open(weights, framework="pt") as file:
        known = set(json.loads(file.metadata()["token_ids"]))
    tokenizer = toy_tokenizer()
    words = dict.fromkeys(re.findall(r"\w+|[^\w\s]", text.lower()))
    return [word for word in words if not known.issuperset(tokenizer.encode(word))]
