"""What the language model is asked, and how its phrases become the stored sentences.

A prompt set is versioned as a whole: any change to a template, to the format instruction or to the style
needs a new id, because the id is part of the key under which a description is stored.
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
class PromptSet:
    """One version of the questions, of the format that is asked for and of the style of what is stored.

    ``questions`` and ``frames`` have one entry a kind (``spatial``, ``temporal``) with the fields ``{n}``
    and ``{cls}``, and ``{cls}`` and ``{phrase}``. ``split_names``: glued names are asked about as words.
    """

    id: str
    questions: Mapping[str, str]
    frames: Mapping[str, str]
    leads: Mapping[str, str]
    split_names: bool = False

    def words(self, label: str) -> str:
        """Return the class name as question and sentence spell it."""
        return class_words(split_camel(label) if self.split_names else label)

    def question(self, label: str, kind: str, n: int) -> str:
        """Return the user message: the paper's prompt, word for word."""
        return self.questions[check_kind(kind)].format(n=n, cls=self.words(label))

    def instruction(self, kind: str, n: int) -> str:
        """Return the system message: only the form of the answer, so that the question stays verbatim."""
        return _FORMAT.format(n=n, lead=self.leads[check_kind(kind)])

    def sentence(self, label: str, kind: str, answer: str) -> str:
        """Return the sentence that is stored for one phrase of an answer; raises if nothing is left of it.

        Like the published files: lower case throughout, one fixed frame around a short phrase. A phrase that
        brings list marks, quotation marks or the frame itself is stripped of them first.
        """
        phrase = bare_phrase(answer)
        if not re.search(r"[^\W_]", phrase):
            raise DescriptionError(f"{answer!r} holds no words")
        return self.frames[check_kind(kind)].format(cls=self.words(label).lower(), phrase=phrase)


def bare_phrase(answer: str) -> str:
    """Return an answer's phrase in lower case, without list marks, quotation marks and the frame."""
    phrase = " ".join(answer.split()).lower()
    phrase = _LIST_MARK.sub("", phrase).strip(_MARKS)
    return (unframed(phrase) or phrase).strip(_MARKS)


def unframed(sentence: str, kind: str | None = None) -> str | None:
    """Return the phrase within the frame of the published sentences (of ``kind``), or None without that frame."""
    framed = _FRAME.match(sentence.strip())
    if framed is None or kind not in {None, "temporal" if framed["step"] else "spatial"}:
        return None
    return _FRAME_END.sub("", framed["phrase"].strip(_MARKS)).strip(_MARKS)


def check_kind(kind: str) -> str:
    """Return ``kind``; raises ``DescriptionError`` unless it is one of ``KINDS``."""
    if kind not in KINDS:
        raise DescriptionError(f"unknown kind of description '{kind}'; there are: {', '.join(KINDS)}")
    return kind


def class_words(label: str) -> str:
    """Return a class name as it stands in a sentence: ``_`` becomes a space, ``CamelCase`` is kept.

    Names stay as the label file spells them, as the class prompts of the papers keep them, so that a
    description and a class prompt name an action with the same tokens.
    """
    return " ".join(label.replace("_", " ").split())


def split_camel(label: str) -> str:
    """Return ``ApplyEyeMakeup`` as ``Apply Eye Makeup``; what is not glued stays as it is."""
    return _CAMEL.sub(" ", label)


MSTA_V1 = PromptSet(
    id="msta-v1",
    # MSTA (CVPR 2025), section 3.3; verbatim, with the paper's N and {cls} as fields.
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

# UCF-101's names are glued; the published descriptions were asked for, and name their action, as they are.
MSTA_V1_SPLIT = replace(MSTA_V1, id="msta-v1-split", split_names=True)

PROMPT_SETS: Mapping[str, PromptSet] = MappingProxyType({prompts.id: prompts for prompts in (MSTA_V1, MSTA_V1_SPLIT)})


def prompt_set(prompt_id: str) -> PromptSet:
    """Return the prompt set of that id; raises ``DescriptionError`` with those that there are."""
    if prompt_id not in PROMPT_SETS:
        raise DescriptionError(f"unknown prompt set '{prompt_id}'; there are: {', '.join(PROMPT_SETS)}")
    return PROMPT_SETS[prompt_id]
