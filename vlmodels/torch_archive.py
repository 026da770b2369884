"""Read the tensors of torch's zip files, ``torch.save``'s and TorchScript's, without running anything in them.

Such a file holds a pickle, which names tensors (``torch_pickle``), and one uncompressed entry for each storage. The
entries below ``code/`` of a TorchScript archive are never opened.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlmodels.torch_pickle import ArchiveError, Module, Storage, View, read_pickle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_PICKLE = 16 << 20
"""Bytes of a pickle: OpenAI's have 0.1 MB."""
_MAX_PARTS = 100_000
"""Named tensors and modules of an archive; parts may be shared, so few bytes can name very many."""


def read_archive(path: Path) -> tuple[Any, bool]:
    """Read the content of an archive; return it, and whether it is TorchScript's.

    Returns:
        What ``torch.load`` returns for a ``torch.save`` of tensors in dictionaries and lists; of a TorchScript module,
        the tensors among the attributes of its modules, by name: parameters, buffers and other tensors.

    Raises:
        ArchiveError: the file is damaged, or has other content.
    """
    try:
        with zipfile.ZipFile(path) as file:
            entries = _Entries(file, path.stat().st_size)
            found = read_pickle(entries.pickle())
            if isinstance(found, Module) and found.path.startswith("__torch__"):
                return _Tensors(entries).fill(dict(_named_views(found))), True
            return _Tensors(entries).fill(found), False
    except ArchiveError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, OSError, EOFError, ValueError) as error:
        raise ArchiveError(f"damaged: {str(error).strip().partition(chr(10))[0][:200]}") from error
    except (IndexError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise ArchiveError(f"its pickle is damaged ({type(error).__name__})") from error


class _Entries:
    """The entries of an archive: each is read only if it is stored plainly and its name is in the file once."""

    def __init__(self, file: zipfile.ZipFile, size: int) -> None:
        self._file, self.size = file, size
        self._by_name: dict[str, list[zipfile.ZipInfo]] = {}
        for entry in file.infolist():
            self._by_name.setdefault(entry.filename, []).append(entry)
        roots = {name.rpartition("/")[0] for name in self._by_name if name.rpartition("/")[2] == "data.pkl"}
        if len(roots) != 1:
            raise ArchiveError(f"no archive of torch's: it has {len(roots)} entries data.pkl")
        self._root = roots.pop()
        if f"{self._root}/byteorder" in self._by_name and self.read("byteorder", 6) != b"little":
            raise ArchiveError("it was written on a machine with another byte order")

    def pickle(self) -> bytes:
        """Return the pickle that names the tensors."""
        return self.read("data.pkl", _MAX_PICKLE)

    def read(self, name: str, most: int) -> bytes:
        """Return an entry of at most ``most`` bytes."""
        entries = self._by_name.get(f"{self._root}/{name}", [])
        if len(entries) != 1:
            raise ArchiveError(f"it has {len(entries)} entries {name}, not 1")
        if entries[0].compress_type != zipfile.ZIP_STORED or entries[0].file_size > min(most, self.size):
            raise ArchiveError(f"its entry {name} is compressed, or larger than it should be")
        return self._file.read(entries[0])


class _Tensors:
    """Puts tensors in the place of views; equal views become one tensor, as tied weights are."""

    def __init__(self, entries: _Entries) -> None:
        self._entries = entries
        self._storages: dict[str, bytearray] = {}
        self._tensors: dict[View, Tensor] = {}
        self._elements = 0
        self._bytes = 0

    def fill(self, tree: Any) -> Any:
        """Return a tree of dictionaries and lists with tensors; other objects in it become None."""
        filled: dict[int, Any] = {}  # a part that is in several places is filled once

        def fill(part: Any, depth: int) -> Any:
            if depth > 100:
                raise ArchiveError("its content is nested too deeply")
            if isinstance(part, View):
                return self._tensor(part)
            if not isinstance(part, (dict, list, tuple)):
                return part if isinstance(part, (str, int, float, bytes)) else None
            if id(part) not in filled:
                if isinstance(part, dict):
                    filled[id(part)] = {key: fill(value, depth + 1) for key, value in part.items()}
                else:
                    filled[id(part)] = [fill(value, depth + 1) for value in part]
            return filled[id(part)]

        return fill(tree, 0)

    def _tensor(self, view: View) -> Tensor:
        if view not in self._tensors:
            dtype = view.dtype or view.storage.dtype
            if dtype is None:
                raise ArchiveError("a tensor has no type")
            self._check(view, dtype)
            raw = self._storage(view.storage, dtype)
            flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            self._tensors[view] = torch.as_strided(flat, view.size, view.stride, view.offset)
        return self._tensors[view]

    def _check(self, view: View, dtype: torch.dtype) -> None:
        """Raise ArchiveError unless a view lies in its storage, and all views together are no more than the file."""
        elements = math.prod(view.size)
        end = view.offset + sum((size - 1) * stride for size, stride in zip(view.size, view.stride, strict=True))
        stored = view.storage.elements if view.dtype is None else view.storage.elements // dtype.itemsize
        self._elements += elements
        if max(view.size, default=0) > self._entries.size or self._elements > self._entries.size:
            raise ArchiveError("its tensors have more elements than the file has bytes")
        if elements and end >= stored:
            raise ArchiveError(f"a tensor of shape {view.size} reaches beyond its storage")

    def _storage(self, storage: Storage, dtype: torch.dtype) -> bytearray:
        if storage.key not in self._storages:
            content = self._entries.read(f"data/{storage.key}", self._entries.size)
            self._bytes += len(content)
            if self._bytes > self._entries.size:
                raise ArchiveError("its storages overlap")
            self._storages[storage.key] = bytearray(content)  # torch warns of memory that it may not write to
        raw = self._storages[storage.key]
        itemsize = 1 if storage.dtype is None else dtype.itemsize
        if len(raw) != storage.elements * itemsize:
            raise ArchiveError(f"its storage {storage.key} has {len(raw)} bytes, not {storage.elements * itemsize}")
        return raw


def _named_views(module: Module) -> Iterator[tuple[str, View]]:
    """Yield the tensors of a TorchScript module and of those in it, by their dotted names."""
    pending, count = [("", module)], 0
    while pending:
        prefix, owner = pending.pop()
        for name, value in owner.attributes.items():
            count += 1
            if count > _MAX_PARTS or len(prefix) > 1000:
                raise ArchiveError("it has too many parts")
            if isinstance(value, View):
                yield f"{prefix}{name}", value
            elif isinstance(value, Module):
                pending.append((f"{prefix}{name}.", value))
