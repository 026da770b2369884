"""Each test starts without what other tests had the text towers compute."""

from __future__ import annotations

import pytest

from vlmodels import shared


@pytest.fixture(autouse=True)
def nothing_shared():
    shared.TEXT.clear()
