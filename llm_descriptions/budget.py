"""What asking costs: the tally, the limits that end it, and an estimate before it starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_descriptions.errors import DescriptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_descriptions.prompts import PromptSet

# Four characters a token is the rule of thumb for English; chat formats add a few tokens a message.
_CHARACTERS_A_TOKEN = 4
_TOKENS_A_CHAT = 12
# A phrase of 12 words, its quotation marks and comma; the object around all of them.
_TOKENS_A_PHRASE = 20
_TOKENS_AROUND = 10


class BudgetError(DescriptionError):
    """The budget is spent; what was answered before stays."""


@dataclass(slots=True)
class Usage:
    """What was spent: HTTP calls (failed ones too) and tokens as the server counted them, or as estimated."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Both kinds together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Budget:
    """The most calls and tokens (in and out together) to spend; None: no limit.

    Calls are never exceeded. Tokens are known only afterwards: each open question counts as the largest so far,
    so only those open before the first reply, sized by rule, can exceed them.
    """

    calls: int | None = None
    tokens: int | None = None

    def check(self, usage: Usage, *, coming: int) -> None:
        """Raise ``BudgetError`` unless one more call is within it; ``coming``: tokens of it and of open calls."""
        if self.calls is not None and usage.calls >= self.calls:
            raise BudgetError(f"the budget of {self.calls} calls is spent")
        if self.tokens is not None and usage.tokens + coming > self.tokens:
            raise BudgetError(
                f"the budget of {self.tokens} tokens has no room for one more question "
                f"({usage.tokens} spent; about {coming} for it and those still open)"
            )


def prompt_tokens(*messages: str) -> int:
    """Estimate the tokens of a question."""
    return _TOKENS_A_CHAT + sum(map(len, messages)) // _CHARACTERS_A_TOKEN


def completion_tokens(n: int) -> int:
    """Estimate the tokens of an answer of ``n`` phrases, without any reasoning before it."""
    return _TOKENS_AROUND + n * _TOKENS_A_PHRASE


@dataclass(frozen=True, slots=True)
class Past:
    """Means over ``answers`` stored ones of the same prompt set, model, server and n."""

    answers: int
    calls: float
    prompt_tokens: float
    completion_tokens: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the questions of one run will probably cost; ``seconds`` is None where nothing was measured before."""

    calls: float
    prompt_tokens: float
    completion_tokens: float
    seconds: float | None
    measured: int

    def cost(self, price_in: float, price_out: float) -> float:
        """Return the cost at prices per million tokens."""
        return (self.prompt_tokens * price_in + self.completion_tokens * price_out) / 1e6


def estimate(
    questions: Sequence[tuple[str, str, int]], prompts: PromptSet, past: Callable[[int], Past | None], concurrency: int
) -> Estimate:
    """Estimate the cost of ``questions`` (label, kind, n) from ``past`` answers with the same n, else by rule."""
    calls = tokens_in = tokens_out = seconds = 0.0
    measured, timed = 0, True
    for n, count in Counter(n for _, _, n in questions).items():
        before = past(n)
        if before is not None:
            calls += count * before.calls
            tokens_in += count * before.prompt_tokens
            tokens_out += count * before.completion_tokens
            seconds += count * before.seconds
            measured += before.answers
            continue
        timed = False
        calls += count
        asked = [(prompts.instruction(kind, n), prompts.question(x, kind, n)) for x, kind, m in questions if m == n]
        tokens_in += sum(prompt_tokens(*messages) for messages in asked)
        tokens_out += count * completion_tokens(n)
    seconds /= max(1, min(concurrency, len(questions)))
    return Estimate(calls, tokens_in, tokens_out, seconds if timed else None, measured)
