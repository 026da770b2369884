"""The example's own arithmetic is that of the predictor, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime", reason="the extra [export] is not installed")

from pipelines.exporting import example
from vlmodels.resize import resize_cover, storage_shape
from vlmodels.sampling import view_indices


@pytest.mark.parametrize("size", [(256, 256), (224, 398), (64, 64), (301, 97)])
@pytest.mark.parametrize("source", [(240, 320), (1080, 607), (33, 57), (64, 64)])
def test_pictures_are_resized_alike(source, size):
    noise = torch.randint(256, (2, *source, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).numpy()
    ours = np.stack([example.cover(picture, *size) for picture in noise])
    assert np.array_equal(ours, resize_cover(noise, *size))


@pytest.mark.parametrize("count", [1, 7, 19, 500])
@pytest.mark.parametrize("clips", [1, 2, 3, 10])
@pytest.mark.parametrize("sampling", ["segments", "dense"])
def test_frames_are_chosen_alike(count, clips, sampling):
    views = {"clips": clips, "frames": 8, "sampling": sampling, "stride": 5}
    assert np.array_equal(example.frame_numbers(count, views), view_indices(count, 8, clips, sampling, 5))


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (50, 500), (97, 97), (1080, 1919)])
def test_stored_sizes_are_alike(height, width):
    sizes = {"stored_short_side": 64, "stored_grid": 8, "widest_aspect": 2.5}
    assert example.stored(sizes, height, width) == storage_shape(width, height, 64)
