"""Ranges of layers, as settings give them: "8-12", "8" or "all"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmodels.clip_context import Tower
from vlmodels.errors import UserError, noted, refuse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vlmodels.spec import BackboneSpec


@dataclass(frozen=True, slots=True)
class LayerRange:
    """Layers ``start`` to ``stop``, counted from 1 and inclusive; ``stop=None`` is the tower's last layer.

    ``setting`` is the name of the setting, for messages.
    """

    start: int
    stop: int | None
    setting: str = "layers"

    @classmethod
    def parse(cls, text: str, setting: str = "layers") -> LayerRange:
        """Parse "8-12", "8" or "all".

        Raises:
            UserError: it is another text, or the range runs backwards or begins below 1.
        """
        if text == "all":
            return cls(1, None, setting)
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
        start, stop = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= start <= stop:
            raise UserError(
                f"{setting}='{text}' is not a range of layers; write 8-12 (counted from 1, inclusive), 8 or all"
            )
        return cls(start, stop, setting)

    @classmethod
    def rule(cls, text: str, setting: str = "layers") -> tuple[bool, str]:
        """Return the rule that ``text`` is a range, and its message, for ``Config.rules``."""
        try:
            cls.parse(text, setting)
        except UserError as error:
            return False, str(error)
        return True, ""

    def within(self, depth: int, where: str) -> range:
        """Return the layer numbers in a tower of ``depth`` layers; ``where`` names the tower in the message.

        Raises:
            UserError: the range reaches beyond the tower.
        """
        stop = depth if self.stop is None else self.stop
        if stop > depth:
            raise UserError(
                f"{self.setting}={self.start}-{stop} does not fit {where}, which has {depth} layers; "
                f"use 1-{depth} or all"
            )
        return range(self.start, stop + 1)


def text_layers_rules(text_layers: str, setting: str = "towers", towers: str = "both") -> list[tuple[bool, str]]:
    """Return the rules of a setting ``text_layers``: a range, and only where ``setting`` selects both towers."""
    if not text_layers:
        return []
    message = f"text_layers={text_layers} needs {setting}=both; with {setting}={towers}, set layers"
    return [LayerRange.rule(text_layers, "text_layers"), (towers == "both", message)]


def tower_ranges(spec: BackboneSpec, towers: Iterable[Tower], layers: str, text_layers: str = "") -> dict[Tower, range]:
    """Return the layer numbers of each tower: ``layers``, or in the text tower ``text_layers`` if it is not empty.

    Raises:
        UserError: a range reaches beyond its tower; one message names all.
    """
    found, problems = dict[Tower, range](), list[str]()
    for tower in towers:
        own = tower == "text" and text_layers
        chosen = LayerRange.parse(text_layers, "text_layers") if own else LayerRange.parse(layers)
        with noted(problems):
            found[tower] = chosen.within(spec.layers(tower), f"the {tower} tower of {spec.name}")
    refuse(problems)
    return found
