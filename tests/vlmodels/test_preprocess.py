from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny_clip import tiny_backbone
from vlmodels.clip import create
from vlmodels.preprocess import eval_views


@pytest.fixture(scope="module")
def spec():
    with torch.device("meta"):
        return create("ViT-B-16-quickgelu", weights=None).spec


def unnormalised(views, spec):
    return (views * torch.tensor(spec.std).view(3, 1, 1) + torch.tensor(spec.mean).view(3, 1, 1)) * 255


def test_one_view_is_the_centre_of_frames_of_256(spec):
    clips = torch.randint(0, 256, (2, 3, 256, 340, 3), dtype=torch.uint8)
    views = eval_views(clips, spec)
    assert views.shape == (2, 3, 3, 224, 224)
    expected = clips[:, :, 16:240, 58:282].permute(0, 1, 4, 2, 3).float()
    assert torch.allclose(unnormalised(views, spec), expected, atol=1e-3)


@pytest.mark.parametrize("shape", [(224, 301), (301, 224)])
@pytest.mark.parametrize("starts", [(0, 38, 77), (0, 19, 38, 77)])  # of four: 0, m // 4, m // 2, m, as M2-CLIP has it
def test_several_views_lie_along_the_long_side(spec, shape, starts):
    clips = torch.randint(0, 256, (1, 2, *shape, 3), dtype=torch.uint8)
    views = unnormalised(eval_views(clips, spec, crops=len(starts)), spec)
    assert views.shape == (len(starts), 2, 3, 224, 224)
    for view, start in zip(views, starts, strict=True):
        cut = clips[0].narrow(2 if shape[1] > shape[0] else 1, start, 224)
        assert torch.allclose(view, cut.permute(0, 3, 1, 2).float(), atol=1e-3)


def test_other_crops_are_refused(spec):
    with pytest.raises(ValueError, match="crops may be 1, 3, 4, not 2"):
        eval_views(torch.zeros(1, 1, 224, 224, 3, dtype=torch.uint8), spec, crops=2)


@pytest.mark.parametrize("crops", [1, 3, 4])
@pytest.mark.parametrize("shape", [(256, 340), (120, 90), (1080, 1920), (224, 224), (300, 800)])
def test_any_size_gives_the_backbone_s_size_and_keeps_a_plain_colour(spec, shape, crops):
    clips = torch.full((1, 1, *shape, 3), 100, dtype=torch.uint8)
    views = eval_views(clips, spec, crops=crops)
    assert views.shape == (crops, 1, 3, 224, 224)
    assert torch.allclose(unnormalised(views, spec), torch.full((1,), 100.0), atol=0.6)


def test_the_views_of_a_clip_are_side_by_side_and_grids_need_not_be_square():
    spec = tiny_backbone().spec
    clips = torch.stack([torch.full((2, 40, 30, 3), value, dtype=torch.uint8) for value in (10, 200)])
    views = eval_views(clips, spec, crops=3)
    assert views.shape == (6, 2, 3, 16, 24)
    assert views[:3].mean() < 0 < views[3:].mean()
