"""Videos that requests name by URI."""

from __future__ import annotations

import pytest

from pipelines.serving.limits import RefusedError
from pipelines.serving.stored import AllowedUris
from tests.helpers.dripping import dripping
from vlmodels.errors import UserError


@pytest.mark.parametrize("prefix", ["http://127.0.0.1/", "https://store/", "videos/", "../x"])
def test_prefixes_that_lead_anywhere_are_refused(prefix):
    with pytest.raises(UserError, match="--allow-uris"):
        AllowedUris.of([prefix])


def test_a_store_that_drips_holds_no_request(tmp_path):
    with dripping("body") as store:
        uris = AllowedUris((f"{store.address}/",), seconds=0.3)  # stands for any store: of() allows no http
        with pytest.raises(RefusedError, match=r"after 0\.3 s") as refused:
            uris.fetch(f"{store.address}/a.mp4", tmp_path / "a.mp4", 1000)
        assert not store.was_sent.is_set()
    assert (refused.value.status, refused.value.code) == (422, "too_slow")
