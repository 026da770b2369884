"""The paper's prompts, verbatim, and the sentences that phrases become."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest

from llm_descriptions.errors import DescriptionError
from llm_descriptions.prompts import MSTA_V1, MSTA_V1_SPLIT, PROMPT_SETS, prompt_set, split_camel, unframed


def test_questions_are_verbatim():
    assert MSTA_V1.question("brush hair", "spatial", 2) == (
        "Please give me 2 sentences describing the visual appearance of the action brush hair"
    )
    assert MSTA_V1.question("brush hair", "temporal", 4) == (
        "Please give me 4 sentences describing the temporally decoupled steps of the action brush hair"
    )
    assert PROMPT_SETS["msta-v1"] is MSTA_V1


def test_the_format_is_not_part_of_the_question():
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
def test_spatial_sentences_have_one_form(answer):
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
def test_temporal_sentences_have_one_form(answer):
    assert MSTA_V1.sentence("brush_hair", "temporal", answer) == (
        "A video of brush hair generally involves the following step: lifting the hair, which is a sub-step."
    )


def test_numbers_in_a_phrase_and_braces_in_a_name_stay():
    assert MSTA_V1.sentence("a", "spatial", "2 people 1.5 m apart") == "A video about 2 people 1.5 m apart."
    assert MSTA_V1.question("{odd} {n}", "spatial", 2).endswith("the action {odd} {n}")
    assert "of {odd} gen" in MSTA_V1.sentence("{odd}", "temporal", "x")


def test_an_unknown_kind_and_an_empty_phrase_are_refused():
    with pytest.raises(DescriptionError, match=r"unknown kind of description 'spatiale'.*spatial, temporal"):
        MSTA_V1.question("a", "spatiale", 2)
    with pytest.raises(DescriptionError, match="no words"):
        MSTA_V1.sentence("a", "spatial", " - ...")


def test_only_one_prompt_set_splits_camel_case():
    assert [split_camel(name) for name in ("ApplyEyeMakeup", "TaiChi", "TVWatching", "brush_hair", "Dribbling")] == [
        "Apply Eye Makeup", "Tai Chi", "TV Watching", "brush_hair", "Dribbling",
    ]  # fmt: skip
    assert MSTA_V1.question("ApplyEyeMakeup", "spatial", 2).endswith("the action ApplyEyeMakeup")
    assert MSTA_V1_SPLIT.question("ApplyEyeMakeup", "spatial", 2).endswith("the action Apply Eye Makeup")
    assert "of applyeyemakeup generally" in MSTA_V1.sentence("ApplyEyeMakeup", "temporal", "x")
    assert "of apply eye makeup generally" in MSTA_V1_SPLIT.sentence("ApplyEyeMakeup", "temporal", "x")


def test_the_prompts_of_an_id_never_change():
    """A changed prompt needs a new id, because the id is part of the key of stored descriptions."""
    digests = {}
    for name, prompts in PROMPT_SETS.items():
        texts = [
            (prompts.instruction(kind, 3), prompts.question("HighJump_up", kind, 3), prompts.sentence("aB", kind, "x"))
            for kind in ("spatial", "temporal")
        ]
        digests[name] = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]
    assert digests == {"msta-v1": "b1de20d4a6b9", "msta-v1-split": "666e4d4cd5fc"}
    assert prompt_set("msta-v1-split").id == "msta-v1-split"
    with pytest.raises(DescriptionError, match="unknown prompt set 'v9'; there are: msta-v1, msta-v1-split"):
        prompt_set("v9")


def test_published_sentences_have_the_frames(shared_data):
    """Count the sentences without the frame, file by file."""
    counts = Counter()
    for path in (shared_data / "descriptions").glob("*.json"):
        if "_base" in path.name or "_novel" in path.name:
            continue
        kind = "spatial" if "_s_" in path.name else "temporal"
        for texts in json.loads(path.read_text(encoding="utf-8-sig")).values():
            counts[path.stem.replace("description_", "")] += sum(unframed(text, kind) is None for text in texts)
    assert {name: count for name, count in counts.items() if "_s_" in name and count} == {
        "4_s_k400": 3, "4_s_k600": 3, "4_s_ssv2": 9, "4_s_ucf_101": 3,
        "8_s_hmdb": 18, "8_s_k400": 98, "8_s_k600": 127, "8_s_ssv2": 14, "8_s_ucf_101": 21,
    }  # fmt: skip
    assert {name: count for name, count in counts.items() if "_t_" in name and count} == {"2_t_hmdb": 2, "2_t_ssv2": 2}
