"""Start without ``torch._dynamo``, timm and transformers, which neither training nor prediction of CLIP needs.

Importing open_clip took 7.5 s on two slow cores, more than twice as long as torch: 4.2 s were ``torch._dynamo``'s and
1.3 s timm's; transformers would add 3 s. Each comes for a few names, which do nothing in eager mode or with open_clip's
own towers and tokenizer:

- torchvision imports ``torch._dynamo.utils`` for ``roi_align`` (since pytorch/vision#8436), and ``torch._dynamo`` so
  that ``tv_tensors.wrap`` is never compiled; torch itself imports it for the first optimizer and
  DistributedDataParallel;
- ``open_clip.timm_model`` imports timm for the towers of timm;
- ``open_clip.hf_model`` imports transformers for the text towers of Hugging Face, and ``open_clip.coca_model`` for
  captions.

``torch.compile``, ``torch.export``, timm's models, Hugging Face's tokenizers and whatever else asks for them get the
real packages. With other versions than those of ``WRITTEN_FOR`` nothing is deferred. It may go when ``python -X
importtime`` finds none of them in ``import open_clip`` and a step of an optimizer.
"""

from __future__ import annotations

import functools
import importlib
import sys
import weakref
from importlib.metadata import PackageNotFoundError, version
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

from vlmodels.deferral import ABSENT, Deferral

_DYNAMO, _UTILS, _OUTPUTS = "torch._dynamo", "torch._dynamo.utils", "transformers.modeling_outputs"
WRITTEN_FOR = {"torch": "2.14", "torchvision": "0.29", "open_clip_torch": "3.3"}
TRANSFORMERS = "5.24"  # which registered models of CLIP do without
_CACHE = "__dynamo_disable"  # where torch._compile keeps what ``disable`` made of a function
_disabled = weakref.WeakSet[FunctionType]()


@functools.cache
def defer_imports() -> None:
    """Let these packages be imported when they are first needed. Imports neither them nor torch."""
    if not all(_is_version(package, begin) for package, begin in WRITTEN_FOR.items()):
        return
    Deferral(_DYNAMO, (_DYNAMO, _UTILS), _SERVED_OF_DYNAMO, as_expected=_caches, loaded=_forget_disabled).install()
    Deferral("timm", ("timm", "timm.layers"), _SERVED_OF_TIMM).install()
    if _is_version("transformers", TRANSFORMERS):
        Deferral("transformers", ("transformers", _OUTPUTS), _SERVED_OF_TRANSFORMERS).install()


def _is_version(package: str, begin: str) -> bool:
    try:
        return version(package).startswith(f"{begin}.")
    except PackageNotFoundError:
        return False


def _caches() -> bool:
    """Whether torch caches disabled functions where they can be forgotten."""
    disable = getattr(sys.modules.get("torch._compile"), "_disable_dynamo", None)
    inner = [c for c in getattr(getattr(disable, "__code__", None), "co_consts", ()) if isinstance(c, CodeType)]
    return any({_CACHE, "disable"} <= set(code.co_names) for code in inner)


def _disable_of_compiler(function: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Return what ``torch.compiler.disable`` makes of a function: torchvision's is disabled when it is first called.

    ``torch._compile`` has just that for torch's own functions, so the compiler knows the result.
    """
    asking = sys._getframe(2).f_globals.get("__name__")  # noqa: SLF001 - torch.compiler asks in the name of others
    if asking == "torchvision.tv_tensors" and type(function) is FunctionType:
        disable: Any = sys.modules["torch._compile"]
        return disable._disable_dynamo(function, recursive)  # noqa: SLF001 - see above
    return _real_dynamo().disable(function, recursive, reason=reason)


def _disable(function: Any = None, *args: Any, **options: Any) -> Any:
    """Return the function that ``torch._compile`` asks to disable: where nothing is compiled there is nothing to do."""
    if type(function) is FunctionType and options == {"wrapping": False}:
        _disabled.add(function)
        return function
    return _real_dynamo().disable(function, *args, **options)


def _real_dynamo() -> Any:
    """Load and return ``torch._dynamo``: nothing is served to this module."""
    return importlib.import_module(_DYNAMO)


def _forget_disabled() -> None:
    """Let ``torch._compile`` ask again, now that ``disable`` does something."""
    for function in tuple(_disabled):
        if vars(function).get(_CACHE) is function:
            delattr(function, _CACHE)


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


_SERVED_OF_DYNAMO: dict[tuple[str, str], Any] = {
    ("torchvision.ops.roi_align", f"{_UTILS}.is_compile_supported"): None,
    ("torch._compile", f"{_DYNAMO}.disable"): _disable,
    ("torch.compiler", f"{_DYNAMO}.disable"): _disable_of_compiler,
    ("torch.optim.optimizer", f"{_DYNAMO}.graph_break"): _nothing,
    # The default of torch._dynamo.config.optimize_ddp: a change of it would have loaded torch._dynamo.
    ("torch.nn.parallel.distributed", f"{_UTILS}.get_optimize_ddp_mode"): lambda: "ddp_optimizer",
    # init_process_group clears a cache, of which there is none yet.
    ("torch.distributed.distributed_c10d", f"{_DYNAMO}.trace_rules"): SimpleNamespace(clear_lru_cache=_nothing),
}
_SERVED_OF_TIMM: dict[tuple[str, str], Any] = {
    ("open_clip.timm_model", f"timm.layers.{name}"): None
    for name in ("RotAttentionPool2d", "AttentionPool2d", "Mlp", "to_2tuple")
}
_OF_TRANSFORMERS = ("AutoModel", "AutoTokenizer", "AutoConfig", "PretrainedConfig")
_OF_OUTPUTS = ("BaseModelOutput", "BaseModelOutputWithPooling", "BaseModelOutputWithPoolingAndCrossAttentions")
_OF_COCA = (
    "LogitsProcessorList",
    "TopPLogitsWarper",
    "TopKLogitsWarper",
    "RepetitionPenaltyLogitsProcessor",
    "MinLengthLogitsProcessor",
    "MaxLengthCriteria",
    "StopStringCriteria",
    "EosTokenCriteria",
    "StoppingCriteriaList",
)
_SERVED_OF_TRANSFORMERS: dict[tuple[str, str], Any] = {
    **{("open_clip.hf_model", f"transformers.{name}"): None for name in _OF_TRANSFORMERS},
    **{("open_clip.hf_model", f"{_OUTPUTS}.{name}"): None for name in _OF_OUTPUTS},
    # CoCa wants all or none, and 5.24 lacks one more that it wants, BeamSearchScorer.
    **{("open_clip.coca_model", f"transformers.{name}"): ABSENT for name in _OF_COCA},
}
