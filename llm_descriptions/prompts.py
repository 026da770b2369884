"""Prompts for the language model, and the sentences that its phrases become.

A prompt set is versioned as a whole: any change to a template, to the format instruction or to the frames needs a new
id, because the id is part of the key under which a description is stored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from llm_descriptions.errors import DescriptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS = ("spatial", "temporal")
"""Kinds of descriptions: what an action looks like, and its steps in time."""

_FORMAT = """\
Your answer is read by a program. Answer with one JSON object and nothing else:
{{"sentences": ["...", "..."]}} with exactly {n} strings, no two of them alike.
Write each string as one short lower-case English phrase of at most 12 words that can follow the words \
"{lead}", without numbering, quotation marks or a full stop."""

_LIST_MARK = re.compile(r"^(?:[-*\u2022\u2013]\s+|\(?\d{1,2}[.):]\s+|step\s+\d+\s*[:.)-]\s*)", re.IGNORECASE)
_FRAME = re.compile(
    r"^a videos? (?:about|(?P<step>(?:of .*? )?generally involves the following step:))\s+(?P<phrase>.+)$",
    re.IGNORECASE,
)
_MARKS = " \"'`*.,;:"
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_FRAME_END = re.compile(r",? which is a(?:nother)? sub-step$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Question:
    """A request for ``n`` descriptions of one kind for one class."""

    label: str
    kind: str
    n: int


@dataclass(frozen=True, slots=True)
class PromptSet:
    """One version of the questions, of the answer's format and of the stored sentences.

    Attributes:
        id: the version.
        questions: the question by kind, with the fields ``{n}`` and ``{cls}``.
        frames: the stored sentence by kind, with the fields ``{cls}`` and ``{phrase}``.
        leads: by kind, the words that a phrase must be able to follow.
        split_names: ask about names in camel case as separate words.
    """

    id: str
    questions: Mapping[str, str]
    frames: Mapping[str, str]
    leads: Mapping[str, str]
    split_names: bool = False

    def words(self, label: str) -> str:
        """Spell the class name as in questions and sentences."""
        return class_words(split_camel(label) if self.split_names else label)

    def question(self, label: str, kind: str, n: int) -> str:
        """Build the user message: the paper's prompt, verbatim."""
        return self.questions[check_kind(kind)].format(n=n, cls=self.words(label))

    def instruction(self, kind: str, n: int) -> str:
        """Build the system message; it alone describes the answer's format, so that the question stays verbatim."""
        return _FORMAT.format(n=n, lead=self.leads[check_kind(kind)])

    def sentence(self, label: str, kind: str, answer: str) -> str:
        """Build the stored sentence from one phrase of an answer.

        As in the published files, it is in lower case, with one fixed frame around a short phrase. List marks,
        quotation marks and the frame are first removed from the phrase.

        Raises:
            DescriptionError: the phrase has no words.
        """
        phrase = bare_phrase(answer)
        if not re.search(r"[^\W_]", phrase):
            raise DescriptionError(f"{answer!r} has no words")
        return self.frames[check_kind(kind)].format(cls=self.words(label).lower(), phrase=phrase)


def bare_phrase(answer: str) -> str:
    """Strip a phrase of list marks, quotation marks and the frame, and convert it to lower case."""
    phrase = " ".join(answer.split()).lower()
    phrase = _LIST_MARK.sub("", phrase).strip(_MARKS)
    return (unframed(phrase) or phrase).strip(_MARKS)


def unframed(sentence: str, kind: str | None = None) -> str | None:
    """Extract the phrase from a sentence with the published frame (of ``kind``, if given); None without that frame."""
    framed = _FRAME.match(sentence.strip())
    if framed is None or kind not in {None, "temporal" if framed["step"] else "spatial"}:
        return None
    return _FRAME_END.sub("", framed["phrase"].strip(_MARKS)).strip(_MARKS)


def check_kind(kind: str) -> str:
    """Return ``kind``, or raise ``DescriptionError`` if it is not one of ``KINDS``."""
    if kind not in KINDS:
        raise DescriptionError(f"unknown kind of description '{kind}'; there are: {', '.join(KINDS)}")
    return kind


def class_words(label: str) -> str:
    """Spell a class name as words: ``_`` becomes a space, ``CamelCase`` stays.

    The papers' class prompts also keep the spelling of the label file, so a description and a class prompt name an
    action with the same tokens.
    """
    return " ".join(label.replace("_", " ").split())


def split_camel(label: str) -> str:
    """Split ``ApplyEyeMakeup`` into ``Apply Eye Makeup``; other names stay unchanged."""
    return _CAMEL.sub(" ", label)


MSTA_V1 = PromptSet(
    id="msta-v1",
    # MSTA (CVPR 2025), section 3.3, verbatim, with the fields {n} and {cls}.
    questions=MappingProxyType(
        {
            "spatial": "Please give me {n} sentences describing the visual appearance of the action {cls}",
            "temporal": "Please give me {n} sentences describing the temporally decoupled steps of the action {cls}",
        }
    ),
    frames=MappingProxyType(
        {
            "spatial": "A video about {phrase}.",
            "temporal": "A video of {cls} generally involves the following step: {phrase}, which is a sub-step.",
        }
    ),
    leads=MappingProxyType(
        {"spatial": "A video about", "temporal": "A video of this action involves the following step:"}
    ),
)

# UCF-101's names are in camel case; the published descriptions keep it, in the questions and in the sentences.
MSTA_V1_SPLIT = replace(MSTA_V1, id="msta-v1-split", split_names=True)

PROMPT_SETS: Mapping[str, PromptSet] = MappingProxyType({prompts.id: prompts for prompts in (MSTA_V1, MSTA_V1_SPLIT)})


def prompt_set(prompt_id: str) -> PromptSet:
    """Return the prompt set with this id, or raise ``DescriptionError`` with the known ids."""
    if prompt_id not in PROMPT_SETS:
        raise DescriptionError(f"unknown prompt set '{prompt_id}'; there are: {', '.join(PROMPT_SETS)}")
    return PROMPT_SETS[prompt_id]
