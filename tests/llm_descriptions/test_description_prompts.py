"""The paper's prompts word for word, and what becomes of a phrase."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest

from llm_descriptions.answer import InvalidAnswerError, read_answer
from llm_descriptions.errors import DescriptionError
from llm_descriptions.locate import TOY
from llm_descriptions.prompts import MSTA_V1, MSTA_V1_SPLIT, PROMPT_SETS, prompt_set, split_camel, unframed


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
        ("", "no JSON object"),
        ("I am sorry, I can't help with that.", "a refusal: 'I am sorry"),
        ('{"error": "I cannot assist with this request"}', "a refusal"),
        ('{"sentences": ["Sorry, but I can\u2019t describe that", "two hands"]}', "a refusal"),
        ('{"sentences": ["I apologize, but I cannot describe that", "two hands"]}', "a refusal"),
        ('{"sentences": ["one hand", "Sorry, I don\u2019t know this action"]}', "a refusal"),
        ('{"sentences": ["Sorry, no.", "two hands"]}', "a refusal: 'Sorry, no"),
        ('{"sentences": ["1. Unfortunately, I do not know it", "two hands"]}', "a refusal"),
        ('{"sentences": ["n/a", "none"]}', "a placeholder: 'n/a'"),
        ('{"sentences": ["one hand", "Unknown."]}', "a placeholder"),
        ('{"sentences": ["string 1", "string 2"]}', "a placeholder: 'string 1'"),
        ('{"sentences": ["A video about your phrase here.", "two hands"]}', "a placeholder"),
        ('{"sentences": ["a\\u0000b", "two hands"]}', r"string 1 holds control characters: 'a.x00b'"),
        ('{"sentences": ["one hand", "half \\ud83d"]}', "unicode string"),
        ('{"sentences": ["one hand", "___"]}', "no words"),
        ('{"sentences": ["as an AI, I have no body", "two hands"]}', "a refusal"),
        ('{"sentences": ["双手拍在一起", "two hands"]}', "string 1 is not in English"),
        ('{"sentences": ["one hand", "две руки вместе"]}', "string 2 is not in English"),
        ('{"sentences": ["die Hand auf dem Tisch", "eine Person mit einem Hut"]}', "not in English: 'die Hand"),
        ('{"sentences": ["une main sur la table", "des mains qui claquent"]}', "not in English"),
        ('{"sentences": ["las manos con un tambor", "el hombre y una mujer"]}', "not in English"),
        ('{"sentences": ["one hand", "' + "so " * 31 + '"]}', "string 2 has 31 words instead of at most 12"),
        ("[" * 100_000, "no JSON object"),
        ('{"sentences": ' + "[" * 100_000 + "}", "not valid JSON"),
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
        ('{"sentences": ["one hand?", "one, hand!"]}', "twice"),
        ('{"sentences": ["one hand", "' + "long " * 200 + '"]}', "sentences.1"),
    ],
)
def test_bad_answers(content, reason):
    with pytest.raises(InvalidAnswerError, match=reason):
        read_answer(content, MSTA_V1, "clap", "spatial", 2)


@pytest.mark.parametrize(
    "phrases",
    [
        ["a dancer saying i'm sorry with her hands", "people who cannot help laughing"],
        ["a plié at the barre", "café tables with a naïve waiter"],
        ["a sorry dog on a string", "strings of a violin"],
        ["los angeles skyline", "palm trees"],  # one foreign word is a name
        ["die rolling on a table", "the hand of a player"],
        ["smooth strokes", "2 by 3 m mat, 4 °c"],
    ],
)
def test_english_phrases_are_not_taken_for_anything_else(phrases):
    assert len(read_answer(json.dumps({"sentences": phrases}), MSTA_V1, "clap", "spatial", 2)) == 2


def test_no_published_text_is_refused_for_its_language_or_as_a_refusal(shared_data):
    files = [*(shared_data / "descriptions").glob("*.json"), *(shared_data / "descriptions_ost").rglob("*.json")]
    texts, reasons = 0, []
    for path in [*files, *TOY.glob("*.json")]:
        kind = "temporal" if "_t_" in path.name or "temporal" in str(path) else "spatial"
        for index, found in json.loads(path.read_text(encoding="utf-8-sig")).items():
            phrases = [unframed(text) or text for text in found]
            texts += len(phrases)
            try:
                read_answer(json.dumps({"sentences": phrases}), MSTA_V1, f"class {index}", kind, len(phrases))
            except InvalidAnswerError as error:
                reasons.append(str(error))
    assert texts > 50_000
    others = [reason for reason in reasons if "words instead of" not in reason and "twice" not in reason]
    assert others == [], "too long or repeated is all that is wrong with them"


def test_sentences_are_measured_as_they_would_be_stored():
    content, limits = '{"sentences": ["one hand", "two hands"]}', [len("A video about one hand."), 100]
    with pytest.raises(InvalidAnswerError, match="string 2 has too many tokens"):
        read_answer(content, MSTA_V1, "clap", "spatial", 2, too_long=lambda text: len(text) > limits[0])
    assert len(read_answer(content, MSTA_V1, "a", "spatial", 2, too_long=lambda text: len(text) > limits[1])) == 2


def test_glued_names_are_split_only_where_asked_for():
    assert [split_camel(name) for name in ("ApplyEyeMakeup", "TaiChi", "TVWatching", "brush_hair", "Dribbling")] == [
        "Apply Eye Makeup", "Tai Chi", "TV Watching", "brush_hair", "Dribbling",
    ]  # fmt: skip
    assert MSTA_V1.question("ApplyEyeMakeup", "spatial", 2).endswith("the action ApplyEyeMakeup")
    assert MSTA_V1_SPLIT.question("ApplyEyeMakeup", "spatial", 2).endswith("the action Apply Eye Makeup")
    assert "of applyeyemakeup generally" in MSTA_V1.sentence("ApplyEyeMakeup", "temporal", "x")
    assert "of apply eye makeup generally" in MSTA_V1_SPLIT.sentence("ApplyEyeMakeup", "temporal", "x")


def test_what_a_prompt_id_asks_never_changes():
    """A changed prompt needs a new id: stored descriptions are found by it."""
    digests = {}
    for name, prompts in PROMPT_SETS.items():
        said = [
            (prompts.instruction(kind, 3), prompts.question("HighJump_up", kind, 3), prompts.sentence("aB", kind, "x"))
            for kind in ("spatial", "temporal")
        ]
        digests[name] = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]
    assert digests == {"msta-v1": "b1de20d4a6b9", "msta-v1-split": "666e4d4cd5fc"}
    assert prompt_set("msta-v1-split").id == "msta-v1-split"
    with pytest.raises(DescriptionError, match="unknown prompt set 'v9'; there are: msta-v1, msta-v1-split"):
        prompt_set("v9")


def test_frames_of_the_published_files(shared_data):
    """PROTOCOLS 2.3: sentences without their template, counted file by file."""
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
