"""Taking token sequences apart and putting them together, in both families."""

from __future__ import annotations

import pytest
import torch

from vlmodels.clip_context import ClipContext
from vlmodels.layout import join_tokens, split_tokens


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("joint", [False, True])
def test_apart_and_together_is_the_same(joint, extra):
    context = ClipContext(batch=2, frames=3, grid=(2, 4), layer=1, tower="video", joint=joint)
    x = torch.randn(2, 1 + 8 * 3 + extra, 5) if joint else torch.randn(6, 1 + 8 + extra, 5)
    tokens = split_tokens(x, context)
    assert tokens.prefix.shape == (2, 1 if joint else 3, 1, 5)
    assert tokens.patches.shape == (2, 3, 2, 4, 5)
    assert tokens.extra.shape == (2, 1 if joint else 3, extra, 5)
    assert torch.equal(join_tokens(tokens, context), x)


def test_places_are_those_of_frame_row_and_column():
    context = ClipContext(batch=1, frames=3, grid=(2, 4), layer=1, tower="video")
    x = torch.arange(27.0).reshape(3, 9, 1)  # frame t, token n: 9 t + n
    assert split_tokens(x, context).patches[0, 2, 1, 3, 0] == 9 * 2 + 1 + 4 + 3
    joint = ClipContext(batch=1, frames=3, grid=(2, 4), layer=1, tower="video", joint=True)
    x = torch.arange(25.0).reshape(1, 25, 1)
    assert split_tokens(x, joint).patches[0, 2, 1, 3, 0] == 1 + 3 * (4 + 3) + 2
