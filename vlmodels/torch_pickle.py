"""What a pickle of torch's describes: plain values, and tensors by their storage, offset, size and stride.

The pickle is read as a list of instructions (``pickletools``). A name in it stays text: nothing is imported, looked up
or called.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_AXES = 16

_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_LEFT_OUT = {  # may stand next to the weights; what they hold is not read. CfgNode: ViFi-CLIP's settings
    "yacs.config.CfgNode",
    "collections.Counter",
    "torch.Size",
    "torch.device",
    "_codecs.encode",
    "__builtin__.set",
    "__builtin__.bytearray",
    "__builtin__.complex",
    "builtins.set",
    "builtins.bytearray",
    "builtins.complex",
}


class ArchiveError(ValueError):
    """The file is damaged, or no archive of tensors; the message says why, without the file's name."""


class NotOnlyTensorsError(ArchiveError):
    """The file holds something that only code could restore."""


@dataclass(frozen=True)
class _Name:
    """A name of a class or function, which is not looked up."""

    path: str


@dataclass
class Module:
    """An instance of a class, of which only the attributes are read."""

    path: str
    attributes: Mapping[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """The memory of tensors: ``dtype`` is None where each tensor has its own, and elements are bytes."""

    dtype: torch.dtype | None
    key: str
    elements: int


@dataclass(frozen=True)
class View:
    """A tensor that is not read yet: ``dtype`` is None where its storage knows it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype | None = None


def read_pickle(data: bytes) -> Any:
    """Return what a pickle describes, as plain values, names and views."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.step(opcode.name, argument)
    raise ArchiveError("its pickle has no end")


_MARK = object()
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
_MAKERS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack and the memo of a pickle; the instructions are those that ``torch.load(weights_only=True)`` takes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _MAKERS:
            stack.append(_MAKERS[name]())
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(self._top(_TUPLES[name]))]
        elif name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name in {"BINPUT", "LONG_BINPUT"}:
            self._memo[argument] = stack[-1]
        elif name in {"BINGET", "LONG_BINGET"}:
            stack.append(self._memo[argument])
        elif name == "GLOBAL":
            stack.append(_Name(argument.replace(" ", ".")))
        elif name != "PROTO":
            self._change(name)

    def _change(self, name: str) -> None:
        stack = self.stack
        if name in {"APPEND", "APPENDS"}:
            values = self._to_mark() if name == "APPENDS" else [stack.pop()]
            if isinstance(stack[-1], list):
                stack[-1].extend(values)
        elif name in {"SETITEM", "SETITEMS"}:
            values = self._to_mark() if name == "SETITEMS" else [stack.pop() for _ in range(2)][::-1]
            _set_items(stack[-1], values)
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name in {"REDUCE", "NEWOBJ"}:
            arguments = stack.pop()
            stack.append(_made(stack.pop(), arguments))
        elif name == "BUILD":
            _build(stack, stack.pop())
        else:
            raise NotOnlyTensorsError(f"its pickle has the instruction {name}")

    def _top(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ArchiveError("its pickle takes more values than it has")
        return self.stack[-count:]

    def _to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise ArchiveError("its pickle has a list without a start")


def _set_items(target: Any, values: list[Any]) -> None:
    if not isinstance(target, dict):
        return
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, (str, int, float)):  # others may be nested so deeply that their hash ends the process
            raise ArchiveError("a dictionary has keys that are neither text nor numbers")
        target[key] = value


def _made(name: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what a call stands for; only the functions that torch.save writes are known, and none is called."""
    path = name.path if isinstance(name, _Name) else ""
    function = path.removeprefix("torch._utils.")
    if path in _LEFT_OUT or path.startswith(("__torch__.", "torch.jit._pickle.")):
        return Module(path)
    if path == "collections.OrderedDict" and not arguments:
        return {}
    if function == "_rebuild_tensor_v2":
        return _view(*arguments[:4], dtype=None)
    if function == "_rebuild_tensor_v3" and isinstance(arguments[6], _Name):
        return _view(*arguments[:4], dtype=_DTYPES[arguments[6].path])
    if function in {"_rebuild_parameter", "_rebuild_parameter_with_state"}:
        return arguments[0]
    raise NotOnlyTensorsError(f"it would call {path or 'a value'}")


def _build(stack: list[Any], state: Any) -> None:
    """Give the attributes on the stack to the object below them."""
    target = stack[-1]
    if isinstance(target, Module) and target.path.startswith("__torch__"):
        if not isinstance(state, dict):
            raise NotOnlyTensorsError(f"only the code of its {target.path} could restore the tensors")
        target.attributes = state
    elif not isinstance(target, (Module, dict)):
        raise NotOnlyTensorsError("it sets the state of a value")


def _storage(reference: Any) -> Storage:
    kind, name, key, _, elements = reference
    if kind != "storage" or not isinstance(name, _Name) or not isinstance(key, str) or not _is_count(elements):
        raise ArchiveError("it names a storage that there cannot be")
    if name.path == "torch.storage.UntypedStorage":
        return Storage(None, key, elements)
    dtype = _STORAGES.get(name.path.removeprefix("torch.").removesuffix("Storage"))
    if dtype is None:
        raise ArchiveError(f"it has tensors of a type that is not read here ({name.path})")
    return Storage(dtype, key, elements)


def _view(storage: Any, offset: Any, size: Any, stride: Any, *, dtype: Any) -> View:
    shaped = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= _MAX_AXES
    if not shaped or not all(map(_is_count, (offset, *size, *stride))):
        raise ArchiveError("it has a tensor with a shape that there cannot be")
    if not isinstance(storage, Storage) or (storage.dtype is None) != (dtype is not None):
        raise ArchiveError("it has a tensor without a storage of its type")
    return View(storage, offset, size, stride, dtype)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62
