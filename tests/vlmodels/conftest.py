"""Each test starts with an empty cache of text features."""

from __future__ import annotations

import pytest

from vlmodels import text_cache


@pytest.fixture(autouse=True)
def empty_text_cache():
    text_cache.TEXT_CACHE.clear()
