"""Texts of users in messages: whole, or their start and end."""

from __future__ import annotations

from vlmodels.errors import shortened, with_short_words


def test_long_texts_are_cut_in_the_middle():
    assert shortened("a" * 200) == "a" * 200
    assert shortened("a" * 300 + "end", 20) == "aaaaaaaa...aaaaaend"


def test_long_words_of_a_message_are_cut():
    assert with_short_words("no such file") == "no such file"
    said = with_short_words(f"/{'d/' * 3000}a.mp4: no such file, see {'x' * 10}", 40)
    assert said.startswith("/d/d/d")
    assert said.endswith("/d/a.mp4: no such file, see xxxxxxxxxx")
    assert len(said) < 80
