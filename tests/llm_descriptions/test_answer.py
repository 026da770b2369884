"""Answers of the language model: which are accepted, and why others are not."""

from __future__ import annotations

import json

import pytest

from llm_descriptions.answer import InvalidAnswerError, read_answer
from llm_descriptions.locate import TOY_FOLDER
from llm_descriptions.prompts import MSTA_V1, Question, unframed

CLAP = Question("clap", "spatial", 2)


@pytest.mark.parametrize(
    "content",
    [
        '{"sentences": ["one hand", "two hands"]}',
        '```json\n{"sentences": ["one hand", "two hands"]}\n```',
        '<think>{"sentences": []} no</think>Here: {"sentences": ["one hand", "two hands"]}',
    ],
)
def test_good_answers_become_sentences(content):
    assert read_answer(content, MSTA_V1, CLAP) == (
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
        ('{"sentences": ["a\\u0000b", "two hands"]}', r"string 1 has control characters: 'a.x00b'"),
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
def test_bad_answers_are_refused_with_the_reason(content, reason):
    with pytest.raises(InvalidAnswerError, match=reason):
        read_answer(content, MSTA_V1, CLAP)


@pytest.mark.parametrize(
    "phrases",
    [
        ["a dancer saying i'm sorry with her hands", "people who cannot help laughing"],
        ["a plié at the barre", "café tables with a naïve waiter"],
        ["a sorry dog on a string", "strings of a violin"],
        ["los angeles skyline", "palm trees"],  # one foreign word may be a name
        ["die rolling on a table", "the hand of a player"],
        ["smooth strokes", "2 by 3 m mat, 4 °c"],
    ],
)
def test_unusual_english_phrases_are_accepted(phrases):
    assert len(read_answer(json.dumps({"sentences": phrases}), MSTA_V1, CLAP)) == 2


def test_published_texts_are_refused_only_if_too_long_or_repeated(shared_data):
    files = [*(shared_data / "descriptions").glob("*.json"), *(shared_data / "descriptions_ost").rglob("*.json")]
    texts, reasons = 0, []
    for path in [*files, *TOY_FOLDER.glob("*.json")]:
        kind = "temporal" if "_t_" in path.name or "temporal" in str(path) else "spatial"
        for index, found in json.loads(path.read_text(encoding="utf-8-sig")).items():
            phrases = [unframed(text) or text for text in found]
            texts += len(phrases)
            question = Question(f"class {index}", kind, len(phrases))
            try:
                read_answer(json.dumps({"sentences": phrases}), MSTA_V1, question)
            except InvalidAnswerError as error:
                reasons.append(str(error))
    assert texts > 50_000
    others = [reason for reason in reasons if "words instead of" not in reason and "twice" not in reason]
    assert others == [], "no other reason applies to a published text"


def test_the_length_of_the_stored_sentence_counts():
    content, limits = '{"sentences": ["one hand", "two hands"]}', [len("A video about one hand."), 100]
    with pytest.raises(InvalidAnswerError, match="string 2 has too many tokens"):
        read_answer(content, MSTA_V1, CLAP, too_long=lambda text: len(text) > limits[0])
    assert len(read_answer(content, MSTA_V1, CLAP, too_long=lambda text: len(text) > limits[1])) == 2
