"""The paper's prompts word for word, and what becomes of a phrase."""

from __future__ import annotations

import pytest

from llm_descriptions.answer import InvalidAnswerError, read_answer
from llm_descriptions.errors import DescriptionError
from llm_descriptions.prompts import MSTA_V1, PROMPT_SETS


def test_questions_are_verbatim():
    assert MSTA_V1.question("brush hair", "spatial", 2) == (
        "Please give me 2 sentences describing the visual appearance of the action brush hair"
    )
    assert MSTA_V1.question("brush hair", "temporal", 4) == (
        "Please give me 4 sentences describing the temporally decoupled steps of the action brush hair"
    )
    assert PROMPT_SETS["msta-v1"] is MSTA_V1


def test_the_form_is_asked_for_apart_from_the_question():
    for kind in ("spatial", "temporal"):
        assert "JSON" in MSTA_V1.instruction(kind, 3)
        assert "exactly 3 strings" in MSTA_V1.instruction(kind, 3)
        assert "JSON" not in MSTA_V1.question("run", kind, 3)


@pytest.mark.parametrize(
    "answer",
    [
        "Smooth, flowing strokes",
        "1. smooth, flowing strokes.",
        "- 'smooth, flowing strokes'",
        "A video about smooth, flowing strokes.",
        " smooth,\n flowing   strokes",
    ],
)
def test_spatial_style(answer):
    assert MSTA_V1.sentence("brush_hair", "spatial", answer) == "A video about smooth, flowing strokes."


@pytest.mark.parametrize(
    "answer",
    [
        "Lifting the hair.",
        "Step 1: lifting the hair",
        "(2) lifting the hair",
        "A video of brushing hair generally involves the following step: lifting the hair, which is a sub-step.",
    ],
)
def test_temporal_style(answer):
    assert MSTA_V1.sentence("brush_hair", "temporal", answer) == (
        "A video of brush hair generally involves the following step: lifting the hair, which is a sub-step."
    )


def test_numbers_within_a_phrase_and_braces_in_a_name_survive():
    assert MSTA_V1.sentence("a", "spatial", "2 people 1.5 m apart") == "A video about 2 people 1.5 m apart."
    assert MSTA_V1.question("{odd} {n}", "spatial", 2).endswith("the action {odd} {n}")
    assert "of {odd} gen" in MSTA_V1.sentence("{odd}", "temporal", "x")


def test_unknown_kind_and_empty_phrase():
    with pytest.raises(DescriptionError, match=r"unknown kind of description 'spatiale'.*spatial, temporal"):
        MSTA_V1.question("a", "spatiale", 2)
    with pytest.raises(DescriptionError, match="no words"):
        MSTA_V1.sentence("a", "spatial", " - ...")


@pytest.mark.parametrize(
    "content",
    [
        '{"sentences": ["one hand", "two hands"]}',
        '```json\n{"sentences": ["one hand", "two hands"]}\n```',
        '<think>{"sentences": []} no</think>Here: {"sentences": ["one hand", "two hands"]}',
    ],
)
def test_good_answers(content):
    assert read_answer(content, MSTA_V1, "clap", "spatial", 2) == (
        "A video about one hand.",
        "A video about two hands.",
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no JSON object"),
        ("I am sorry, I can't help with that.", "no JSON object"),
        ('{"sentences": ["one hand", ]}', "not valid JSON"),
        ('{"sentences": ["one hand", "two', "no JSON object"),
        ('{"answers": ["one hand", "two hands"]}', "sentences"),
        ('{"sentences": "one hand"}', "sentences"),
        ('{"sentences": ["one hand", 2]}', "sentences.1"),
        ('{"sentences": ["one hand", " "]}', "sentences.1"),
        ('{"sentences": ["one hand", "..."]}', "no words"),
        ('{"sentences": ["one hand"]}', "1 strings instead of 2"),
        ('{"sentences": ["one hand", "b", "c"]}', "3 strings instead of 2"),
        ('{"sentences": ["one hand", "1. One  hand."]}', "twice"),
        ('{"sentences": ["one hand", "' + "long " * 200 + '"]}', "sentences.1"),
    ],
)
def test_bad_answers(content, reason):
    with pytest.raises(InvalidAnswerError, match=reason):
        read_answer(content, MSTA_V1, "clap", "spatial", 2)
