"""Weight files of other projects: reading their named tensors, and comparing two sets of them."""

from __future__ import annotations

import math
import zipfile
from collections import OrderedDict
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vlmodels.errors import UserError
from vlmodels.torch_archive import read_archive
from vlmodels.torch_pickle import NotOnlyTensorsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


# ViFi-CLIP's checkpoints hold their settings too; we do not read them, so any mapping will do
_SETTINGS = (OrderedDict, "yacs.config.CfgNode")
_FACTS = {"input_resolution", "context_length", "vocab_size"}  # numbers that OpenAI's archives hold too


def key_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], limit: int = 5) -> str:
    """Describe how two sets of named tensors differ in names, shapes and kinds of numbers; "" if they do not.

    At most ``limit`` names of each kind are listed.
    """

    def some(names: Iterable[str]) -> str:
        names = sorted(names)
        more = f" and {len(names) - limit} more" if len(names) > limit else ""
        return ", ".join(names[:limit]) + more

    parts = []
    if missing := expected.keys() - found.keys():
        parts.append(f"missing {some(missing)}")
    if extra := found.keys() - expected.keys():
        parts.append(f"unexpected {some(extra)}")
    shapes = [
        f"{name} is {tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    ]
    if shapes:
        parts.append(f"other shapes: {some(shapes)}")
    types = [
        f"{name} holds {found[name].dtype}, not {expected[name].dtype}"
        for name in expected.keys() & found.keys()
        if found[name].is_floating_point() != expected[name].is_floating_point()
    ]
    if types:
        parts.append(f"other types: {some(types)}")
    return "; ".join(parts)


def read_weights(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Read named fp32 tensors from a weight file; return them, and whether it is one of OpenAI's TorchScript archives.

    No code in the file is executed, compiled or imported: files are safetensors, torch's archives (``torch_archive``),
    or pickles of a torch before 1.6 (``torch.load(weights_only=True)``). It unwraps a checkpoint's
    ``state_dict``/``model`` and strips ``module.`` prefixes.

    Raises:
        UserError: the file is none of these, damaged, or holds values that are not finite.
    """
    found, archive = _read(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise UserError(f"{path} holds no named tensors")
    named = {str(k).removeprefix("module."): v for k, v in found.items() if k not in _FACTS}
    if archive:  # the mask is an attribute of OpenAI's text blocks, and no weight
        named = {k: v for k, v in named.items() if k.rpartition(".")[2] != "attn_mask"}
    weights = {k: v.float() if v.is_floating_point() else v for k, v in named.items()}
    if wrong := not_finite(weights):
        raise UserError(f"{path} {wrong}; download or copy it again")
    return weights, archive


def read_shapes(path: Path) -> dict[str, Tensor]:
    """Return tensors without content (meta) of the names and shapes in a safetensors file; scalars are 1.

    Raises:
        UserError: the file is damaged, or none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as weights: {error}; download or copy it again") from error
    return {
        name.removeprefix("module."): torch.empty(shape, device="meta") if shape else torch.ones(())
        for name, shape in shapes.items()
    }


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Describe the tensors that hold NaN or infinity; "" if there are none."""
    floats = {k: v for k, v in tensors.items() if v.is_floating_point() and v.numel()}
    # the extremes: NaN is both; five times faster than to look at each value
    wrong = sorted(k for k, v in floats.items() if not all(math.isfinite(end) for end in v.aminmax()))
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"holds values that are not finite, in {wrong[0][:200]}{more}" if wrong else ""


def _read(path: Path) -> tuple[Any, bool]:
    """Return what a weight file holds, and whether it is a TorchScript archive."""
    if path.suffix == ".npz":
        raise UserError(
            f"{path} holds arrays of NumPy, as big_vision saves them, and is not read; download open_clip's file of "
            "these weights (open_clip_model.safetensors)"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path), False
        if zipfile.is_zipfile(path):
            return read_archive(path)
        with torch.serialization.safe_globals([_SETTINGS]):
            return torch.load(path, map_location="cpu", weights_only=True), False
    except NotOnlyTensorsError as error:
        raise UserError(
            f"{path} holds more than tensors ({error}), which would run code when it is loaded; if you trust it, "
            "convert it to safetensors"
        ) from error
    except UnpicklingError as error:
        raise UserError(
            f"{path} is not a weight file, or holds more than tensors; if you trust it, convert it to safetensors"
        ) from error
    except Exception as error:  # torch and its unpickler raise many kinds for damaged files
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise UserError(f"{path} cannot be read as weights: {reason}; download or copy it again") from error


def is_vificlip(state: Mapping[str, Tensor]) -> bool:
    """Return whether these are the tensors of a ViFi-CLIP checkpoint, by their names; not of Apple's MobileCLIP."""
    return any(name.startswith("image_encoder.") and not name.startswith("image_encoder.model.") for name in state)


def from_vificlip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a fully fine-tuned ViFi-CLIP, without its class prompts.

    Raises:
        UserError: it holds learned prompts, which a CLIP does not have.
    """
    if "prompt_learner.ctx" in state or any("VPT" in name for name in state):
        raise UserError("this ViFi-CLIP checkpoint holds learned prompts, not the fine-tuned towers that can be loaded")
    prefixes = {"image_encoder.": "visual.", "text_encoder.": ""}
    renamed = {}
    for name, value in state.items():
        if name.startswith("prompt_learner."):
            continue
        prefix = next((p for p in prefixes if name.startswith(p)), "")
        renamed[prefixes.get(prefix, "") + name.removeprefix(prefix)] = value
    return renamed
