"""Cache of what a method computes from its classes: features of their prompts and descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_Value = TypeVar("_Value")


class ClassCache:
    """Values by name and classes, each valid for one state; at most ``limit`` of them, the oldest go first."""

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit  # of a few lists of classes
        self._values: dict[tuple[str, tuple[str, ...]], tuple[object, Any]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: str, classes: Sequence[str], state: object, compute: Callable[[], _Value]) -> _Value:
        """Return ``compute()``, run without a graph, or the stored value if it was computed in an equal state."""
        key = (name, tuple(classes))
        if key not in self._values or self._values[key][0] != state:
            self._values.pop(key, None)
            with torch.inference_mode(mode=False), torch.no_grad():  # so that training may use it later
                self._values[key] = (state, compute())
            while len(self._values) > self.limit:
                self._values.pop(next(iter(self._values)))
        value: _Value = self._values[key][1]
        return value

    def clear(self) -> None:
        """Drop all values."""
        self._values.clear()
