"""The values that a setting may take, and ways through a space: grid, random samples, suggestions of a searcher."""

from __future__ import annotations

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune_spaces.layer_ranges import all_ranges
from vlmodels.errors import UserError, refuse

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_LARGEST_SHUFFLE = 100_000
"""Combinations that are listed and shuffled; of more, random ones are drawn until enough of them differ."""

Setting = Mapping[str, str]
"""Values by key, both as in ``--set key=value``: {"method.layers": "8-12"}."""


class Domain(ABC):
    """The possible values of one setting; ``str(domain)`` describes them."""

    def all_values(self) -> tuple[str, ...] | None:
        """List all values in order, or return None if they form a continuum."""
        return None

    @abstractmethod
    def draw(self, generator: random.Random) -> str:
        """Draw a random value."""

    @abstractmethod
    def distributions(self, key: str) -> dict[str, BaseDistribution]:
        """Map the names of the Optuna parameters that encode the setting ``key`` to their distributions."""

    @abstractmethod
    def decode(self, key: str, params: Mapping[str, Any]) -> str:
        """Turn the Optuna parameters of the setting ``key`` into its value."""

    @abstractmethod
    def encode(self, key: str, value: str) -> dict[str, Any]:
        """Turn a value of the setting ``key`` into the Optuna parameters that ``decode`` accepts."""


class _Finite(Domain):
    @abstractmethod
    def all_values(self) -> tuple[str, ...]:
        """List all values in order."""

    def draw(self, generator: random.Random) -> str:
        return generator.choice(self.all_values())


@dataclass(frozen=True)
class Choice(_Finite):
    """One of several texts."""

    values: tuple[str, ...]

    def all_values(self) -> tuple[str, ...]:
        """List all values in order."""
        return self.values

    def distributions(self, key: str) -> dict[str, BaseDistribution]:
        """Return one categorical distribution."""
        from optuna.distributions import CategoricalDistribution

        return {key: CategoricalDistribution(self.values)}

    def decode(self, key: str, params: Mapping[str, Any]) -> str:
        """Return the text itself."""
        return str(params[key])

    def encode(self, key: str, value: str) -> dict[str, Any]:
        """Return the text itself."""
        return {key: value}

    def __str__(self) -> str:
        return ", ".join(f"'{value}'" if "," in value else value for value in self.values)


@dataclass(frozen=True)
class Integers(_Finite):
    """A whole number, ``low`` to ``high`` inclusive."""

    low: int
    high: int

    def all_values(self) -> tuple[str, ...]:
        """List all values in order."""
        return tuple(str(number) for number in range(self.low, self.high + 1))

    def distributions(self, key: str) -> dict[str, BaseDistribution]:
        """Return one integer distribution."""
        from optuna.distributions import IntDistribution

        return {key: IntDistribution(self.low, self.high)}

    def decode(self, key: str, params: Mapping[str, Any]) -> str:
        """Write the number."""
        return str(int(params[key]))

    def encode(self, key: str, value: str) -> dict[str, Any]:
        """Read the number."""
        return {key: int(value)}

    def __str__(self) -> str:
        return f"{self.low} to {self.high}, whole numbers"


@dataclass(frozen=True)
class Layers(_Finite):
    """Any range of the layers 1 to ``depth``.

    A searcher chooses two integers, ``key.start`` and ``key.stop``, in any order; the value is the range from the
    smaller to the larger. So every suggestion is valid, and close suggestions are close ranges.
    """

    depth: int

    def all_values(self) -> tuple[str, ...]:
        """List all ranges in order."""
        return all_ranges(self.depth)

    def distributions(self, key: str) -> dict[str, BaseDistribution]:
        """Return two integer distributions."""
        from optuna.distributions import IntDistribution

        return {f"{key}.{end}": IntDistribution(1, self.depth) for end in ("start", "stop")}

    def decode(self, key: str, params: Mapping[str, Any]) -> str:
        """Write the range between the two layers."""
        first, last = sorted(int(params[f"{key}.{end}"]) for end in ("start", "stop"))
        return f"{first}-{last}"

    def encode(self, key: str, value: str) -> dict[str, Any]:
        """Read the first and the last layer."""
        first, last = value.split("-")
        return {f"{key}.start": int(first), f"{key}.stop": int(last)}

    def __str__(self) -> str:
        return f"any range within 1-{self.depth}"


@dataclass(frozen=True)
class _Continuous(Domain):
    low: float
    high: float

    log = False

    def distributions(self, key: str) -> dict[str, BaseDistribution]:
        """Return one distribution of real numbers."""
        from optuna.distributions import FloatDistribution

        return {key: FloatDistribution(self.low, self.high, log=self.log)}

    def decode(self, key: str, params: Mapping[str, Any]) -> str:
        """Write the number."""
        return to_text(float(params[key]))

    def encode(self, key: str, value: str) -> dict[str, Any]:
        """Read the number; rounded to 4 digits it may lie just outside the bounds, so it is clipped."""
        return {key: min(max(float(value), self.low), self.high)}

    def __str__(self) -> str:
        return f"{to_text(self.low)} to {to_text(self.high)}"


class Uniform(_Continuous):
    """A number between ``low`` and ``high``, written with 4 significant digits."""

    def draw(self, generator: random.Random) -> str:
        """Draw a random number."""
        return to_text(generator.uniform(self.low, self.high))


class LogUniform(_Continuous):
    """A number between ``low`` and ``high``, uniform in its logarithm, written with 4 significant digits."""

    log = True

    def draw(self, generator: random.Random) -> str:
        """Draw a random number."""
        drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return to_text(min(max(drawn, self.low), self.high))  # exp(log(x)) may miss x by a digit

    def __str__(self) -> str:
        return f"{super().__str__()} (log)"


Space = Mapping[str, Domain]
"""The settings that a search varies, by key."""


def to_text(value: object) -> str:
    """Write a value as ``--set`` accepts it: "true", "64", "0.005"; floats with at most 4 significant digits."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def grid(space: Space) -> list[Setting]:
    """List every combination of values; the last key varies fastest.

    Raises:
        UserError: there are continuous domains; the message names them all.
    """
    values_by_key = {key: domain.all_values() for key, domain in space.items()}
    refuse(
        [
            f"a grid needs a list of values for {key}, which may be anything from {space[key]}: "
            f"give one with --grid {key}=a,b,c"
            for key, values in values_by_key.items()
            if values is None
        ]
    )
    combinations = itertools.product(*(values or () for values in values_by_key.values()))
    return [dict(zip(space, combination, strict=True)) for combination in combinations]


def sample(space: Space, count: int, seed: int) -> list[Setting]:
    """Draw ``count`` random settings; the same seed draws the same ones, and a larger count begins with them.

    If all domains are finite, the settings are distinct, and no more than there are combinations.
    """
    generator = random.Random(seed)
    listed = [values for domain in space.values() if (values := domain.all_values()) is not None]
    if len(listed) < len(space):
        return [{key: domain.draw(generator) for key, domain in space.items()} for _ in range(count)]
    total = math.prod(map(len, listed))
    numbers = _distinct_numbers(generator, total, min(count, total))
    return [_combination(number, space, listed) for number in numbers]


def _distinct_numbers(generator: random.Random, total: int, count: int) -> list[int]:
    """Draw ``count`` different numbers below ``total``.

    A smaller count returns the first of these numbers; ``random.sample`` does not promise that.
    """
    if total <= _LARGEST_SHUFFLE:
        order = list(range(total))
        generator.shuffle(order)
        return order[:count]
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        drawn[generator.randrange(total)] = None
    return list(drawn)


def _combination(number: int, keys: Space, values: Sequence[Sequence[str]]) -> Setting:
    """Return the combination with this number: its digits, in a mixed base, choose a value of each key."""
    setting: dict[str, str] = {}
    for key, options in zip(keys, values, strict=True):
        number, digit = divmod(number, len(options))
        setting[key] = options[digit]
    return setting


def parse_grid(text: str) -> tuple[str, Choice]:
    """Parse ``--grid``'s "optim.lr=1e-3,3e-3" into the key and its values.

    Raises:
        UserError: ``text`` is not of that form.
    """
    key, _, listed = text.partition("=")
    values = parse_values(listed)
    if not key.strip() or not values:
        raise UserError(
            f"--grid '{text}' is not of the form key=a,b,c, such as optim.lr=1e-3,3e-3; values with commas, or other "
            "signs of YAML's lists, are put in quotes: method.targets='q,v','q,k,v'"
        )
    return key.strip(), Choice(tuple(dict.fromkeys(values)))


def parse_values(text: str) -> tuple[str, ...]:
    """Parse "1e-3,3e-3" or "'q,v','q,k,v'" into texts; return () if it is not a list of values.

    The text is a YAML list without its brackets (which may be there), so quotes keep a comma within a value.
    """
    import yaml  # type: ignore[import-untyped]

    bracketed = text if text.lstrip().startswith("[") else f"[{text}]"
    try:  # the base loader reads every scalar as text, and builds nothing else than lists and mappings
        values = yaml.load(bracketed, yaml.BaseLoader)  # noqa: S506
    except yaml.YAMLError:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return ()
    return tuple(values)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the distributions of all Optuna parameters that encode a setting of this space, by name."""
    return {name: found for key, domain in space.items() for name, found in domain.distributions(key).items()}


def decode(space: Space, params: Mapping[str, Any]) -> Setting:
    """Turn suggested values of ``distributions(space)`` into a setting."""
    return {key: domain.decode(key, params) for key, domain in space.items()}


def encode(space: Space, setting: Setting) -> dict[str, Any]:
    """Turn a setting into values of ``distributions(space)``; ``decode`` turns them back."""
    return {name: value for key, domain in space.items() for name, value in domain.encode(key, setting[key]).items()}
