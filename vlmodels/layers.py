"""Ranges of a tower's blocks, as settings write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmodels.errors import UserError, noted, refuse
from vlmodels.sites import Tower

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vlmodels.spec import BackboneSpec


@dataclass(frozen=True, slots=True)
class LayerRange:
    """Layers ``start`` to ``stop``, 1-based and inclusive; ``stop=None`` is the tower's last.

    ``setting`` is the name of the field that said so, for messages.
    """

    start: int
    stop: int | None
    setting: str = "layers"

    @classmethod
    def parse(cls, text: str, setting: str = "layers") -> LayerRange:
        """Read "8-12", "8" or "all".

        Raises:
            UserError: any other text, or a range that runs backwards or begins below 1.
        """
        if text == "all":
            return cls(1, None, setting)
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        start, stop = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= start <= stop:
            raise UserError(f"{setting}='{text}' is no range of layers; write 8-12 (1-based, inclusive), 8 or all")
        return cls(start, stop, setting)

    @classmethod
    def rule(cls, text: str, setting: str = "layers") -> tuple[bool, str]:
        """Whether ``text`` can be read, and what to say if not: for a ``Config``'s rules."""
        try:
            cls.parse(text, setting)
        except UserError as error:
            return False, str(error)
        return True, ""

    def within(self, depth: int, where: str) -> range:
        """The layer numbers in a tower of ``depth`` layers.

        Raises:
            UserError: the range reaches beyond the tower; names both.
        """
        stop = depth if self.stop is None else self.stop
        if stop > depth:
            raise UserError(
                f"{self.setting}={self.start}-{stop} does not fit {where}, which has {depth} layers; "
                f"use 1-{depth} or all"
            )
        return range(self.start, stop + 1)


def text_layers_rules(text_layers: str, setting: str = "towers", towers: str = "both") -> list[tuple[bool, str]]:
    """Rules of a field ``text_layers``, which is empty unless the field ``setting`` says that both towers act."""
    if not text_layers:
        return []
    alone = f"text_layers={text_layers} needs {setting}=both; with {setting}={towers}, layers says which"
    return [LayerRange.rule(text_layers, "text_layers"), (towers == "both", alone)]


def tower_ranges(spec: BackboneSpec, towers: Iterable[Tower], layers: str, text_layers: str = "") -> dict[Tower, range]:
    """Layer numbers of each tower: those of ``layers``, but of ``text_layers``, if given, in the text tower.

    Raises:
        UserError: ranges that reach beyond their tower; all in one message.
    """
    found, problems = dict[Tower, range](), list[str]()
    for tower in towers:
        own = tower == "text" and text_layers
        chosen = LayerRange.parse(text_layers, "text_layers") if own else LayerRange.parse(layers)
        with noted(problems):
            found[tower] = chosen.within(spec.layers(tower), f"the {tower} tower of {spec.name}")
    refuse(problems)
    return found
