"""The published crops and RandAugment: what is drawn, how often, and that a clip is drawn as a whole."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torchvision.transforms import v2

from pipelines.config.schema import AugmentConfig
from pipelines.training.augment import Augment, MultiScaleCrop, rand_augment, random_crop

PLAIN = {"flip": 0.0, "jitter": 0.0, "gray": 0.0}


def coordinates(height, width, frames=2):
    """A clip (T, 3, H, W) whose channels are a pixel's row, its column, and nothing."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8).expand(frames, -1, -1, -1)


@pytest.mark.parametrize(
    "config",
    [{"crop": "resized"}, {"crop": "multiscale"}, {"crop": "short_side"}, {"crop": "multiscale", "randaugment": True}],
)
def test_one_draw_serves_all_frames_and_follows_the_seed(config):
    augment = Augment(AugmentConfig(**config), (48, 48), (0.5,) * 3, (0.5,) * 3)
    still = torch.randint(256, (1, 56, 72, 3), dtype=torch.uint8).expand(3, -1, -1, -1)
    state = torch.get_rng_state()
    outs = [augment(still, seed) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), state)
    for out in outs:
        assert out.shape == (3, 3, 48, 48)
        assert torch.equal(out, out[:1].expand_as(out))
    assert torch.equal(augment(still, 3), outs[3])
    assert sum(torch.equal(out, outs[0]) for out in outs) == 1


def test_multiscale_crop_draws_sides_and_places_evenly():
    crop, clip = MultiScaleCrop((224, 224)), torch.empty(2, 3, 256, 340)
    torch.manual_seed(0)
    drawn = [crop.make_params([clip]) for _ in range(5000)]
    a, b, c, d = 256, 224, 192, 168
    pairs = Counter((p["height"], p["width"]) for p in drawn)
    assert set(pairs) == {(a, a), (b, b), (c, c), (d, d), (a, b), (b, a), (b, c), (c, b), (c, d), (d, c)}
    assert max(pairs.values()) < 1.25 * min(pairs.values())
    places = Counter((p["top"], p["left"]) for p in drawn if (p["height"], p["width"]) == (c, b))
    assert set(places) == {(0, 0), (0, 116), (64, 0), (64, 116), (32, 58)}
    assert max(places.values()) < 1.6 * min(places.values())


def test_multiscale_crop_first_brings_the_short_side_to_256_of_224():
    resize, crop = random_crop(AugmentConfig(crop="multiscale"), (224, 224))
    assert resize(torch.zeros(1, 3, 480, 640)).shape[-2:] == (256, 341)
    assert random_crop(AugmentConfig(crop="multiscale"), (48, 48))[0](torch.zeros(1, 3, 70, 56)).shape[-1] == 55
    picture = crop.transform(coordinates(250, 255), {"top": 82, "left": 31, "height": 168, "width": 192})
    assert picture.shape == (2, 3, 224, 224)
    for channel, low, high in ((0, 82, 82 + 167), (1, 31, 31 + 191)):
        assert abs(int(picture[:, channel].min()) - low) <= 1
        assert abs(int(picture[:, channel].max()) - high) <= 1


def test_short_side_is_drawn_evenly_from_the_size_to_1_15_of_it():
    resize, crop = random_crop(AugmentConfig(crop="short_side"), (48, 48))
    assert isinstance(resize, v2.RandomChoice)
    torch.manual_seed(0)
    shorts = Counter(min(resize(torch.zeros(1, 3, 57, 64, dtype=torch.uint8)).shape[-2:]) for _ in range(1600))
    assert set(shorts) == set(range(48, 56))  # round(48 * 1.15) = 55
    assert max(shorts.values()) < 1.4 * min(shorts.values())
    corners = {tuple(crop(coordinates(55, 60))[0, :2, 0, 0].tolist()) for _ in range(600)}
    assert len(corners) > 0.9 * 8 * 13  # every place, not five: the crop keeps the scale
    large, _ = random_crop(AugmentConfig(crop="short_side"), (224, 224))
    sizes = {min(t(torch.zeros(1, 3, 230, 300)).shape[-2:]) for t in large.transforms}
    assert sizes == set(range(224, 259))


def test_short_side_needs_no_larger_clip_than_its_size():
    augment = Augment(AugmentConfig(crop="short_side", **PLAIN), (48, 48), (0.5,) * 3, (0.5,) * 3)
    for side in range(48, 64):
        clip = torch.zeros(1, side, 80, 3, dtype=torch.uint8)
        assert all(augment(clip, seed).shape == (1, 3, 48, 48) for seed in range(12))


def test_randaugment_has_the_published_strength():
    draw = v2.Compose(rand_augment())
    torch.manual_seed(0)
    flat = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    values = Counter(int(out[0, 0, 8, 8]) for out in (draw(flat) for _ in range(800)))
    assert values[163] > 0  # brightness by 1 + 0.9 * 7/10
    assert values[37] > 0
    picture = torch.randint(256, (1, 3, 16, 16), dtype=torch.uint8)
    unchanged = sum(torch.equal(draw(picture), picture) for _ in range(800)) / 800
    # Nothing happens in each of four turns with 1/2, or 1/2 * (identity and what leaves full-range noise as it is).
    assert (1 / 2 + 1 / 28) ** 4 - 0.03 < unchanged < (1 / 2 + 3 / 28) ** 4 + 0.04
