"""Write what a method has learned into the backbone's own weights, where that is exact.

LoRA's update is a sum of weights, and fine-tuning trains the weights themselves. The other methods cannot be merged:
their adapters add tokens, mix frames or bend by an activation, or act on the residual stream, which no weight of CLIP
multiplies before a norm. ST-Adapter and M2-CLIP's TED are linear, but along time and in that stream.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

import torch

from vlmodels import methods
from vlmodels.backbone import Backbone
from vlmodels.checkpoint import save_tensors
from vlmodels.clip import TOY, TOY_VICLIP
from vlmodels.errors import UserError
from vlmodels.viclip import TEMPORAL_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from vlmodels.methods.base import Method

_WORDS = "token_embedding.weight"


@torch.no_grad()
def merged_method(method: Method) -> Method | None:
    """Return a method that scores alike with nothing but a backbone; None if there is none.

    The backbone is a copy, unless ``method`` has no more than its backbone anyway.
    """
    tensors = method.merged()
    if not tensors:
        return None if tensors is None else method
    spec = method.backbone.spec
    model = copy.deepcopy(method.backbone.model)
    model.load_state_dict(tensors, strict=False)
    backbone = Backbone(
        model,
        method.backbone.tokenizer,
        name=spec.name,
        weights=spec.weights,
        frames=spec.frames,
        statistics=spec.statistics,
    ).to(method.backbone.logit_scale.device)
    plain = methods.get("zeroshot")
    config = plain.Config(template=method.config.template, split_names=method.config.split_names)
    merged = plain(backbone, config).eval()
    if method.classes:
        merged.set_classes(method.classes)
    return merged


def refuse_merged(method: Method) -> None:
    """Raise UserError if a method cannot be merged.

    Raises:
        UserError: the message says why.
    """
    if method.merged() is None:
        raise UserError(
            f"--merged: {method.name} is more than weights of {method.backbone.spec.name}, so no CLIP can hold it; "
            "leave out --merged: the exported graph has it whole"
        )


def write_merged(path: Path, method: Method, facts: Mapping[str, str]) -> None:
    """Write the weights of a merged model by open_clip's names, as ``vlmodels.clip.create(NAME, weights=path)`` reads.

    Args:
        path: a safetensors file.
        method: see ``refuse_merged``.
        facts: metadata of the file.

    Raises:
        UserError: the file cannot be written, or the toy ViCLIP learned positions in time, which its file cannot hold.
    """
    state = {**method.backbone.model.state_dict(), **(method.merged() or {})}
    if method.backbone.spec.name in (TOY, TOY_VICLIP):
        facts = {**facts, "token_ids": _keep_known_words(state)}
    save_tensors(path, state, facts)


def _keep_known_words(state: dict[str, Tensor]) -> str:
    """Turn a state into that of a toy CLIP's file, without the rows of unknown words; return the others' ids, JSON."""
    table = state.pop(TEMPORAL_TABLE, None)
    if table is not None and bool(table.any()):
        raise UserError("--merged: the toy ViCLIP learned positions in time, which a toy weight file cannot hold")
    rows = state[_WORDS].any(dim=1).nonzero().flatten()
    state[_WORDS] = state[_WORDS][rows]
    return json.dumps(rows.tolist())
