"""The TED adapter by itself: each test pins a choice of eq. 6 to 8, on both layouts of a video's tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from vlmodels.clip_context import ClipContext
from vlmodels.layout import Tokens, join_tokens, split_tokens
from vlmodels.ted import TED

B, T, ROWS, COLUMNS, D = 2, 4, 3, 4, 24

both_families = pytest.mark.parametrize("joint", [False, True])


def context(joint=False):
    return ClipContext(B, T, (ROWS, COLUMNS), 1, "video", joint)


def tokens(joint=False, seed=0):
    torch.manual_seed(seed)
    steps = 1 if joint else T
    return Tokens(torch.randn(B, steps, 1, D), torch.randn(B, T, ROWS, COLUMNS, D), torch.zeros(B, steps, 0, D))


def moved(order="parallel", *, biases=True):
    torch.manual_seed(1)
    adapter = TED(D, 8, order)
    for name, parameter in adapter.named_parameters():
        if biases or not name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return adapter


@torch.no_grad()
def run(adapter, given, joint=False):
    return split_tokens(adapter(join_tokens(given, context(joint)), context(joint)), context(joint))


def linear(layer, x):
    return x @ layer.weight.T + layer.bias


def enhancement(te, x):
    """Eq. 6 tap by tap: ``x`` (B,F,...,D)."""
    h = linear(te.down, x)
    out = te.conv.bias.expand_as(h).clone()
    for tap in range(3):
        for t in range(h.shape[1]):
            if 0 <= t + tap - 1 < h.shape[1]:
                out[:, t] += h[:, t + tap - 1] * te.conv.weight[:, 0, tap, 0]
    return linear(te.up, out)


def difference(td, z):
    """Eq. 7 tap by tap: ``z`` (B,T,rows,columns,D)."""
    change = torch.zeros_like(z)
    change[:, 1:] = z[:, 1:] - z[:, :-1]
    h = functional.pad(linear(td.down, change), (0, 0, 1, 1, 1, 1))
    out = td.conv.bias.expand(B, T, ROWS, COLUMNS, -1).clone()
    for row in range(3):
        for column in range(3):
            out += h[:, :, row : row + ROWS, column : column + COLUMNS] * td.conv.weight[:, 0, row, column]
    return linear(td.up, out)


@both_families
@torch.no_grad()
@pytest.mark.parametrize("order", ["parallel", "sequential", "te", "td"])
def test_it_is_the_equations(order, joint):
    adapter, x = moved(order), tokens(joint)
    found = run(adapter, x, joint)
    te_cls = enhancement(adapter.te, x.prefix[:, :, 0]) if adapter.te else 0
    te = enhancement(adapter.te, x.patches) if adapter.te else 0
    source = x.patches + te if order == "sequential" else x.patches
    td = difference(adapter.td, source) if adapter.td else 0
    assert torch.allclose(found.prefix[:, :, 0], x.prefix[:, :, 0] + te_cls, atol=1e-5)  # no difference there
    assert torch.allclose(found.patches, x.patches + te + td, atol=1e-5)


@both_families
def test_it_is_the_identity_until_it_has_learned_and_leaves_its_input(joint):
    flat = join_tokens(tokens(joint), context(joint))
    before = flat.clone()
    fresh = TED(D, 8, "parallel")
    assert torch.equal(fresh(flat, context(joint)), before)
    moved()(flat, context(joint))
    assert torch.equal(flat, before)
    assert fresh.te.up.weight.any()
    assert not fresh.te.conv.weight.any()


def places(found, other):
    """Where patches differ: frame, row, column."""
    return {tuple(place) for place in (found.patches != other.patches).any(-1)[0].nonzero().tolist()}


@both_families
def test_enhancement_reaches_the_same_patch_of_adjacent_frames(joint):
    adapter, x = moved("te"), tokens(joint)
    changed = x.patches.clone()
    changed[:, 1, 2, 3] += torch.randn(D)
    found, other = run(adapter, x, joint), run(adapter, Tokens(x.prefix, changed, x.extra), joint)
    assert places(found, other) == {(0, 2, 3), (1, 2, 3), (2, 2, 3)}
    assert torch.equal(found.prefix[:, :, 0], other.prefix[:, :, 0])


def test_class_tokens_meet_class_tokens_only():
    adapter, x = moved(), tokens()
    changed = x.prefix.clone()
    changed[:, 2] += torch.randn(D)
    found, other = run(adapter, x), run(adapter, Tokens(changed, x.patches, x.extra))
    assert not places(found, other)
    assert (found.prefix[:, :, 0] != other.prefix[:, :, 0]).any(-1).tolist() == [[False, True, True, True]] * B


@both_families
def test_difference_looks_one_frame_back_and_one_patch_around(joint):
    adapter, x = moved("td"), tokens(joint)
    changed = x.patches.clone()
    changed[:, 1, 1, 1] += torch.randn(D)
    found, other = run(adapter, x, joint), run(adapter, Tokens(x.prefix, changed, x.extra), joint)
    around = {(row, column) for row in range(3) for column in range(3)}
    assert places(found, other) == {(t, *place) for t in (1, 2) for place in around}


@both_families
def test_the_first_frame_has_moved_nowhere(joint):
    adapter, x = moved("td", biases=False), tokens(joint)
    found = run(adapter, x, joint)
    assert torch.equal(found.patches[:, 0], x.patches[:, 0])
    assert (found.patches[:, 1:] != x.patches[:, 1:]).any(-1).all()


def test_size():
    """On ViT-B/16, per block: 592,512 for TE and 594,816 for TD."""
    with torch.device("meta"):
        adapter = TED(768, 384, "parallel")
    assert [sum(p.numel() for p in part.parameters()) for part in (adapter.te, adapter.td)] == [592_512, 594_816]
