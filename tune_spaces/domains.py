"""What a setting may be, and the ways through a space: every combination, seeded draws, a searcher's suggestions."""

from __future__ import annotations

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune_spaces.insertion import every_range
from vlmodels.errors import UserError, refuse

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_SHUFFLED = 100_000  # combinations that are put in order at once

Setting = Mapping[str, str]  # "method.layers" -> "8-12": keys and texts as in ``--set key=value``


class Domain(ABC):
    """The values of one setting; as a text, it says which."""

    def every(self) -> tuple[str, ...] | None:
        """All values in order, or None where there is a continuum."""
        return None

    @abstractmethod
    def draw(self, generator: random.Random) -> str:
        """A random value."""

    @abstractmethod
    def dimensions(self, key: str) -> dict[str, BaseDistribution]:
        """Optuna's distributions of the flat values that stand for the setting ``key``, by their names."""

    @abstractmethod
    def decode(self, key: str, config: Mapping[str, Any]) -> str:
        """The value that these flat values stand for."""


class _Finite(Domain):
    @abstractmethod
    def every(self) -> tuple[str, ...]:
        """All values in order."""

    def draw(self, generator: random.Random) -> str:
        return generator.choice(self.every())


@dataclass(frozen=True)
class Choice(_Finite):
    """One of some texts."""

    values: tuple[str, ...]

    def every(self) -> tuple[str, ...]:
        """All values in order."""
        return self.values

    def dimensions(self, key: str) -> dict[str, BaseDistribution]:
        """One categorical distribution."""
        from optuna.distributions import CategoricalDistribution

        return {key: CategoricalDistribution(self.values)}

    def decode(self, key: str, config: Mapping[str, Any]) -> str:
        """The text itself."""
        return str(config[key])

    def __str__(self) -> str:
        return ", ".join(f"'{value}'" if "," in value else value for value in self.values)


@dataclass(frozen=True)
class Integers(_Finite):
    """A whole number, ``low`` to ``high`` inclusive."""

    low: int
    high: int

    def every(self) -> tuple[str, ...]:
        """All values in order."""
        return tuple(str(number) for number in range(self.low, self.high + 1))

    def dimensions(self, key: str) -> dict[str, BaseDistribution]:
        """One integer distribution."""
        from optuna.distributions import IntDistribution

        return {key: IntDistribution(self.low, self.high)}

    def decode(self, key: str, config: Mapping[str, Any]) -> str:
        """The number."""
        return str(int(config[key]))

    def __str__(self) -> str:
        return f"{self.low} to {self.high}, whole numbers"


@dataclass(frozen=True)
class Layers(_Finite):
    """Any range of the layers 1 to ``depth``.

    For a searcher it is two integers, ``key.start`` and ``key.stop``, in any order: the range from the lesser to the
    greater. So every suggestion is a range, and its neighbours are its neighbours.
    """

    depth: int

    def every(self) -> tuple[str, ...]:
        """All ranges in order."""
        return every_range(self.depth)

    def dimensions(self, key: str) -> dict[str, BaseDistribution]:
        """Two integer distributions."""
        from optuna.distributions import IntDistribution

        return {f"{key}.{end}": IntDistribution(1, self.depth) for end in ("start", "stop")}

    def decode(self, key: str, config: Mapping[str, Any]) -> str:
        """The range between the two."""
        start, stop = sorted(int(config[f"{key}.{end}"]) for end in ("start", "stop"))
        return f"{start}-{stop}"

    def __str__(self) -> str:
        return f"any range within 1-{self.depth}"


@dataclass(frozen=True)
class _Continuous(Domain):
    low: float
    high: float

    log = False

    def dimensions(self, key: str) -> dict[str, BaseDistribution]:
        """One distribution of numbers."""
        from optuna.distributions import FloatDistribution

        return {key: FloatDistribution(self.low, self.high, log=self.log)}

    def decode(self, key: str, config: Mapping[str, Any]) -> str:
        """The number."""
        return written(float(config[key]))

    def __str__(self) -> str:
        return f"{written(self.low)} to {written(self.high)}"


class Uniform(_Continuous):
    """A number between ``low`` and ``high``, written with 4 significant digits."""

    def draw(self, generator: random.Random) -> str:
        """A random number."""
        return written(generator.uniform(self.low, self.high))


class LogUniform(_Continuous):
    """A number between ``low`` and ``high``, uniform in its logarithm, written with 4 significant digits."""

    log = True

    def draw(self, generator: random.Random) -> str:
        """A random number."""
        drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return written(min(max(drawn, self.low), self.high))  # exp(log(x)) may miss x by a digit

    def __str__(self) -> str:
        return f"{super().__str__()} (log)"


Space = Mapping[str, Domain]


def written(value: object) -> str:
    """A value as ``--set`` takes it: "true", "64", "0.005"; floats with at most 4 significant digits."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def grid(space: Space) -> list[Setting]:
    """Every combination of values, the last key's turning fastest.

    Raises:
        UserError: there are continuous domains; names them all.
    """
    found = {key: domain.every() for key, domain in space.items()}
    refuse(
        [
            f"a grid needs values of {key}, which may be anything from {space[key]}: give them with --grid {key}=a,b,c"
            for key, values in found.items()
            if values is None
        ]
    )
    listed = [values or () for values in found.values()]
    return [dict(zip(space, combination, strict=True)) for combination in itertools.product(*listed)]


def sample(space: Space, count: int, seed: int) -> list[Setting]:
    """``count`` random settings, the same for the same seed; more begin with the same ones.

    Where all domains are finite, they are distinct, and no more than there are.
    """
    generator = random.Random(seed)
    listed = [values for domain in space.values() if (values := domain.every()) is not None]
    if len(listed) < len(space):
        return [{key: domain.draw(generator) for key, domain in space.items()} for _ in range(count)]
    total = math.prod(map(len, listed))
    settings: list[Setting] = []
    for drawn in _distinct(generator, total, min(count, total)):
        number, setting = drawn, dict[str, str]()
        for key, options in zip(space, listed, strict=True):  # its digits choose a value of each key
            number, digit = divmod(number, len(options))
            setting[key] = options[digit]
        settings.append(setting)
    return settings


def _distinct(generator: random.Random, total: int, count: int) -> list[int]:
    """``count`` different numbers below ``total``; fewer are the first of these (``random.sample``'s need not be)."""
    if total <= _SHUFFLED:
        order = list(range(total))
        generator.shuffle(order)
        return order[:count]
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        drawn[generator.randrange(total)] = None
    return list(drawn)


def parse_grid(text: str) -> tuple[str, Choice]:
    """Read ``--grid``'s "optim.lr=1e-3,3e-3": a list of YAML's, so quotes keep commas; its brackets may be left out.

    Raises:
        UserError: it is not of that form.
    """
    import yaml  # type: ignore[import-untyped]

    key, _, listed = text.partition("=")
    try:  # the base loader makes texts of all scalars, and nothing else but lists and mappings of them
        options = yaml.load(listed if listed.lstrip().startswith("[") else f"[{listed}]", yaml.BaseLoader)  # noqa: S506
    except yaml.YAMLError:
        options = None
    if not key.strip() or not options or not all(isinstance(option, str) for option in options):
        raise UserError(
            f"--grid '{text}' is not of the form key=a,b,c, such as optim.lr=1e-3,3e-3; values with commas, or other "
            "signs of YAML's lists, are put in quotes: method.targets='q,v','q,k,v'"
        )
    return key.strip(), Choice(tuple(dict.fromkeys(options)))


def dimensions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distributions for searchers that suggest flat values; ``decode`` turns these into a setting."""
    return {name: found for key, domain in space.items() for name, found in domain.dimensions(key).items()}


def decode(space: Space, config: Mapping[str, Any]) -> Setting:
    """The setting that suggested values for ``dimensions(space)`` stand for."""
    return {key: domain.decode(key, config) for key, domain in space.items()}
