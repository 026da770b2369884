"""The cost of asking: calls and tokens spent, limits on them, and estimates in advance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_descriptions.errors import DescriptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_descriptions.prompts import PromptSet, Question

# Four characters a token is a rule of thumb for English; chat formats add a few tokens to each question.
_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_CHAT = 12
# A phrase has 12 words, quotation marks and a comma; a JSON object surrounds all phrases.
_TOKENS_PER_PHRASE = 20
_TOKENS_PER_OBJECT = 10


class BudgetError(DescriptionError):
    """The budget is spent; earlier answers are kept."""


@dataclass(slots=True)
class Usage:
    """HTTP calls (failed ones too) and tokens spent; tokens as the server counted them, or else estimated."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Budget:
    """The maximum number of calls and of tokens (prompt and completion together); None: no limit.

    Calls never exceed it. Tokens are only known after a reply, so each open question counts as much as the largest so
    far; only questions sent before the first reply, whose size is an estimate, can exceed the limit.
    """

    calls: int | None = None
    tokens: int | None = None

    def check(self, usage: Usage, *, open_tokens: int) -> None:
        """Raise ``BudgetError`` if there is no room for one more call.

        Args:
            usage: what has been spent.
            open_tokens: tokens that the next call and all open calls will take.
        """
        if self.calls is not None and usage.calls >= self.calls:
            raise BudgetError(f"the budget of {self.calls} calls is spent")
        if self.tokens is not None and usage.tokens + open_tokens > self.tokens:
            raise BudgetError(
                f"the budget of {self.tokens} tokens has no room for one more question "
                f"({usage.tokens} spent; about {open_tokens} for it and for open questions)"
            )


def estimate_prompt_tokens(*messages: str) -> int:
    """Estimate the prompt tokens of a question that consists of ``messages``."""
    return _TOKENS_PER_CHAT + sum(map(len, messages)) // _CHARACTERS_PER_TOKEN


def estimate_completion_tokens(n: int) -> int:
    """Estimate the tokens of an answer with ``n`` phrases, without any reasoning before it."""
    return _TOKENS_PER_OBJECT + n * _TOKENS_PER_PHRASE


def least_tokens(characters: int) -> int:
    """Return the tokens that a text of so many characters has at least, for servers that count too few."""
    return characters // (4 * _CHARACTERS_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class AverageCost:
    """The mean cost of a question, over ``answers`` stored answers with the same prompt set, model, server and n."""

    answers: int
    calls: float
    prompt_tokens: float
    completion_tokens: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """The probable cost of a run.

    Attributes:
        seconds: wall time, or None if not all of it could be derived from stored answers.
        measured: number of stored answers that the estimate is based on.
    """

    calls: float
    prompt_tokens: float
    completion_tokens: float
    seconds: float | None
    measured: int

    def cost(self, price_in: float, price_out: float) -> float:
        """Compute the price of the tokens, given prices per million prompt and completion tokens."""
        return (self.prompt_tokens * price_in + self.completion_tokens * price_out) / 1e6


def estimate(
    questions: Sequence[Question],
    prompts: PromptSet,
    average_cost: Callable[[int], AverageCost | None],
    concurrency: int,
) -> Estimate:
    """Estimate the cost of ``questions``.

    Args:
        questions: the questions to ask.
        prompts: the prompt set to ask them with.
        average_cost: returns the mean cost of stored answers with n phrases, or None if there are none; then the cost
            is estimated from the length of the question.
        concurrency: questions open at a time.
    """
    calls = tokens_in = tokens_out = seconds = 0.0
    measured = 0
    all_measured = True
    for n, count in Counter(question.n for question in questions).items():
        mean = average_cost(n)
        if mean is None:
            mean = _cost_by_length([question for question in questions if question.n == n], prompts)
            all_measured = False
        calls += count * mean.calls
        tokens_in += count * mean.prompt_tokens
        tokens_out += count * mean.completion_tokens
        seconds += count * mean.seconds
        measured += mean.answers
    seconds /= max(1, min(concurrency, len(questions)))
    return Estimate(calls, tokens_in, tokens_out, seconds if all_measured else None, measured)


def _cost_by_length(questions: Sequence[Question], prompts: PromptSet) -> AverageCost:
    tokens = [
        estimate_prompt_tokens(prompts.instruction(q.kind, q.n), prompts.question(q.label, q.kind, q.n))
        for q in questions
    ]
    completion_tokens = estimate_completion_tokens(questions[0].n)
    return AverageCost(0, 1.0, sum(tokens) / len(tokens), completion_tokens, seconds=0.0)
