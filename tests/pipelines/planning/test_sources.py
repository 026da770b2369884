"""How tested data are named."""

from __future__ import annotations

import pytest

from pipelines.planning import sources


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ("a=b", ("a", "b")),
        ("s3://b/a?x=1", ("", "s3://b/a?x=1")),
        ("n=s3://b?x=1", ("n", "s3://b?x=1")),
        ("b", ("", "b")),
    ],
)
def test_names_of_tested_data(item, named):
    assert sources.named_test(item) == named
