"""Name the action in a video with the exported model in this folder; needs numpy, onnxruntime and PyAV, nothing else.

pip install numpy onnxruntime av
python example.py clip.mp4                 # classes.npz beside this file
python example.py clip.mp4 other.npz       # other classes (export.py --format classes)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent


def read(path: str, wanted: np.ndarray, shape: Any) -> np.ndarray:
    """Return upright RGB frames (n,h,w,3) of a video by number, each resized to ``shape(H, W)`` at once."""
    kept = {}
    with av.open(path) as video:
        for number, frame in enumerate(video.decode(video=0)):
            if number in wanted:
                picture = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
                kept[number] = cover(picture, *shape(*picture.shape[:2]))
    return np.stack([kept[number] for number in wanted])


def cover(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut the ends of a picture (H,W,3) to the aspect of height x width, and resize it to that."""
    h, w = picture.shape[:2]
    scale = max(height / h, width / w)
    cut_h, cut_w = min(h, max(1, round(height / scale))), min(w, max(1, round(width / scale)))
    top, left = (h - cut_h) // 2, (w - cut_w) // 2
    return resize(picture[top : top + cut_h, left : left + cut_w], height, width)


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize bilinearly with antialiasing, in the fixed-point arithmetic of PyTorch and Pillow: rows, then columns."""
    for axis, size in ((1, width), (0, height)):
        scale = picture.shape[axis] / size
        support, weights = max(scale, 1.0), np.zeros((size, picture.shape[axis]))
        for row, centre in enumerate(scale * (np.arange(size) + 0.5)):
            first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), picture.shape[axis])
            share = np.maximum(0, 1 - np.abs(np.arange(first, last) - centre + 0.5) / support)
            weights[row, first:last] = share / share.sum()
        bits = next(bits for bits in range(22) if int(0.5 + weights.max() * 2 ** (bits + 1)) >= 2**15)
        summed = np.tensordot(np.floor(weights * 2**bits + 0.5), picture.astype(float), axes=(1, axis))
        summed = np.floor(summed / 2**bits + 0.5)
        picture = np.clip(np.moveaxis(summed, 0, axis), 0, 255).astype(np.uint8)
    return picture


def frame_numbers(count: int, views: dict[str, Any]) -> np.ndarray:
    """Return the numbers (clips,T) of the frames that a video's temporal views hold."""
    clips, frames, stride = views["clips"], views["frames"], views["stride"]
    if views["sampling"] == "segments":
        offsets = (np.arange(clips)[:, None] + 0.5) / clips
        return np.minimum(np.floor((np.arange(frames) + offsets) * count / frames).astype(int), count - 1)
    room = max(0, count - (frames - 1) * stride - 1)
    starts = [room // 2] if clips == 1 else [round(room * clip / (clips - 1)) for clip in range(clips)]
    return np.minimum(np.array(starts)[:, None] + stride * np.arange(frames), count - 1)


def stored(sizes: dict[str, Any], height: int, width: int) -> tuple[int, int]:
    """Return the size (H,W) in which training data of height x width is stored: its aspect on a coarse grid."""
    short, step = sizes["stored_short_side"], sizes["stored_short_side"] // sizes["stored_grid"]
    aspect = min(max(height, width) / min(height, width), sizes["widest_aspect"])
    long = round(aspect * short / step) * step
    return (short, long) if width >= height else (long, short)


def main(video: str, classes: str | Path | None = None) -> None:
    """Print the five most probable classes; the feature if the model has no classes."""
    about = json.loads((HERE / "export.json").read_text(encoding="utf-8"))
    views, sizes = about["views"], about["preprocessing"]
    with av.open(video) as opened:
        count = sum(1 for _ in opened.decode(video=0)) if opened.streams.video else 0
    if count == 0:
        sys.exit(f"{video}: no pictures in it")
    numbers = frame_numbers(count, views)
    frames = read(video, np.unique(numbers), lambda *size: stored(sizes, *size))
    height, width = sizes["crop"]
    least_h, least_w = sizes["resized_to_cover"]
    scale = max(least_h / frames.shape[1], least_w / frames.shape[2])
    shape = round(frames.shape[1] * scale), round(frames.shape[2] * scale)
    if shape != frames.shape[1:3]:
        frames = np.stack([resize(frame, *shape) for frame in frames])
    frames = frames[np.searchsorted(np.unique(numbers), numbers)]  # (clips,T,H,W,3)
    places = [(int((shape[0] - height) * p), int((shape[1] - width) * p)) for p in sizes["crop_places"]]
    crops = [frames[:, :, top : top + height, left : left + width] for top, left in places]
    inputs = {"frames": np.ascontiguousarray(np.concatenate(crops))}  # (views,T,H,W,3), uint8

    own = HERE / "classes.npz"
    known = np.load(classes or own) if classes or own.exists() else None
    if about["scoring"] == "texts" and known is not None:
        inputs["class_features"] = known["features"]
    model = onnxruntime.InferenceSession(HERE / "video.onnx", providers=["CPUExecutionProvider"])
    outputs = dict(zip([output.name for output in model.get_outputs()], model.run(None, inputs), strict=True))
    if known is None:
        feature = outputs["features"].mean(axis=0)
        print(json.dumps((feature / np.linalg.norm(feature)).tolist()))
        return
    logits = outputs["logits"] / about["decision"]["temperature"]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).mean(axis=0)  # over the views
    for index in np.argsort(-probabilities, kind="stable")[:5]:
        print(f"{100 * probabilities[index]:5.1f} %  {known['names'][index]}")
    least = about["decision"]["threshold"]
    if least is not None and probabilities.max() < least and list(known["names"]) == about["classes"]["trained"]:
        print(f"none of these: even the best is below {100 * least:.1f} %")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except av.FFmpegError as error:
        sys.exit(f"{sys.argv[1]}: {error.strerror}")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
