"""Weight files of other projects: reading their named tensors, and comparing two sets of them."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vlmodels.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


# ViFi-CLIP's checkpoints hold their settings too; we do not read them, so any mapping will do
_SETTINGS = (OrderedDict, "yacs.config.CfgNode")


def key_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], limit: int = 5) -> str:
    """Describe how two sets of named tensors differ in names and shapes; "" if they do not.

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
    return "; ".join(parts)


def read_weights(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Read named fp32 tensors from a weight file; return them, and whether it is one of OpenAI's TorchScript archives.

    No code in the file is executed: it reads safetensors, ``torch.load(weights_only=True)``, or only the tensors of a
    TorchScript archive. It unwraps a checkpoint's ``state_dict``/``model`` and strips ``module.`` prefixes.

    Raises:
        UserError: the file is none of these, or damaged.
    """
    archive = path.suffix != ".safetensors" and _is_torchscript(path)
    if archive:
        _refuse_code_that_loads(path)
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        elif archive:
            found = torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
        else:
            with torch.serialization.safe_globals([_SETTINGS]):
                found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, LookupError) as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise UserError(f"{path} cannot be read as weights: {reason}") from error
    except UnpicklingError as error:
        raise UserError(
            f"{path} is not a weight file, or holds more than tensors; if you trust it, convert it to safetensors"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise UserError(f"{path} holds no named tensors")
    facts = {"input_resolution", "context_length", "vocab_size"}  # numbers that OpenAI's archives hold too
    named = {str(k).removeprefix("module."): v for k, v in found.items() if k not in facts}
    return {k: v.float() if v.is_floating_point() else v for k, v in named.items()}, archive


def is_vificlip(state: Mapping[str, Tensor]) -> bool:
    """Return whether these are the tensors of a ViFi-CLIP checkpoint, by their names."""
    return any(name.startswith("image_encoder.") for name in state)


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


def _refuse_code_that_loads(path: Path) -> None:
    """Raise UserError if loading a TorchScript archive would run code: a ``__setstate__``, which no CLIP has."""
    with zipfile.ZipFile(path) as file:
        code = [member for member in file.namelist() if "/code/" in member and member.endswith(".py")]
        if any(b"__setstate__" in file.read(member) for member in code):
            raise UserError(f"{path} would run code when it is loaded; if you trust it, convert it to safetensors")


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(member.endswith("/constants.pkl") for member in file.namelist())
