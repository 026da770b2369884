"""Where a model looks: attention of the class token, drawn over frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pipelines.shards.clip_store import ClipStore
    from vlmodels.methods.base import Method, Output
    from vlmodels.sites import ClipContext


Tested = Mapping[str, tuple["list[str]", "np.ndarray", "np.ndarray"]]


def targets_of(run: Path) -> Tested:
    """Of each test set of a run: its classes, its scored clips (N,) and their targets (N,).

    Raises:
        UserError: no finished run, or one without classes.
    """
    import numpy as np

    from pipelines.records.find import DAMAGED
    from vlmodels.errors import UserError

    try:
        record: Mapping[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
        sets: Mapping[str, list[str]] = {n: names for n, names in record["classes"].items() if names}
        with np.load(run / "predictions.npz", allow_pickle=False) as arrays:
            tested = {n: (names, arrays[f"{n}/clip_id"], arrays[f"{n}/target"]) for n, names in sets.items()}
    except (*DAMAGED, KeyError, AttributeError) as error:
        raise UserError(f"{run} is no folder of a finished run ({error})") from error
    if not tested:
        raise UserError(f"{run} is of protocol {record.get('protocol')}; attention needs a protocol with classes")
    return tested


def choose(
    run: Path, tested: Tested, store: ClipStore, wanted: str | None, count: int
) -> tuple[str, list[str], list[tuple[str, int]]]:
    """The test set's name and classes, and (clip, target) of ``count`` clips, one of each class as far as they go.

    Raises:
        UserError: no such test set, or none of its clips in the data.
    """
    from vlmodels.errors import UserError

    name = next(iter(tested)) if wanted is None else wanted
    if name not in tested:
        raise UserError(f"no test set '{name}' in {run}; there are {', '.join(tested)}")
    classes, ids, targets = tested[name]
    columns = (store.manifest.column(column).to_pylist() for column in ("clip_id", "status"))
    there = {clip for clip, status in zip(*columns, strict=True) if status == "ok"}
    clips = [(str(c), int(t)) for c, t in zip(ids, targets, strict=True) if str(c) in there]
    if not clips:
        raise UserError(f"no test clip of {run} is in {store.uri}; give the data that the run was tested on")
    nth: dict[int, int] = {}  # of its class
    ranked = []
    for clip, target in clips:
        nth[target] = nth.get(target, -1) + 1
        ranked.append((nth[target], clip, target))
    ranked.sort(key=lambda entry: entry[0])
    return name, classes, [(clip, target) for _, clip, target in ranked[:count]]


def class_attention(method: Method, frames: Tensor) -> tuple[Output, np.ndarray]:
    """What a method gives for frames (B,T,3,H,W), and its class token's attention (B,T,rows,columns) in the last block.

    Queries and keys are made again from what the block makes them of: its normed input and, where a method changes it,
    its weight. The mean over heads is a share of all tokens' attention; a joint tower has one class token for all
    frames. The method keeps a hook at its last layer, which changes nothing.
    """
    import torch
    from torch.nn import functional

    from vlmodels.layout import split_tokens

    depth = method.backbone.spec.layers("video")
    block = method.backbone.block("video", depth)
    seen: dict[str, Tensor] = {}

    def weigh(weight: Tensor, context: ClipContext) -> Tensor:
        """Run right after the block has normed its input."""
        heads = block.attn.num_heads
        packed = functional.linear(seen["normed"], weight, block.attn.in_proj_bias).unflatten(-1, (3, heads, -1))
        query, key = packed[:, :1, 0], packed[:, :, 1]
        scores = torch.einsum("bqhd,bnhd->bhqn", query, key) / key.shape[-1] ** 0.5
        shares = scores.float().softmax(-1).mean(dim=1)[:, 0, :, None]  # (sequences, N, 1)
        seen["shares"] = split_tokens(shares, context).patches[..., 0]
        return weight

    norm = block.ln_1.register_forward_hook(lambda _module, _input, output: seen.update(normed=output))
    method.backbone.add("video", depth, "qkv_weight", weigh)  # after the method's own
    try:
        with torch.inference_mode():
            output: Output = method.eval()(frames)
    finally:
        norm.remove()
    return output, seen["shares"].cpu().numpy()


def draw(
    models: Mapping[str, Method],
    store: ClipStore,
    chosen: Sequence[tuple[str, int]],
    classes: Sequence[str],
    out: Path,
    *,
    title: str,
) -> Path:
    """Write a picture for each clip and ``out/attention.html``; return the page.

    Args:
        models: what the rows are called, to methods on backbones of one kind.
        store: where the clips are.
        chosen: clips and their classes, as indices.
        classes: names of the classes to tell apart.
        out: folder; made if it is not there.
        title: of the page.
    """
    import torch

    from pipelines.reports.page import Picture, write_page
    from pipelines.shards.views import views
    from vlmodels.preprocess import eval_views

    spec = next(iter(models.values())).backbone.spec
    shown = torch.cat([eval_views(torch.from_numpy(views(store, clip, 1)), spec) for clip, _ in chosen])
    rows: dict[str, tuple[np.ndarray, list[int]]] = {}
    for label, method in models.items():
        method.set_classes(classes)
        output, attention = class_attention(method, shown)
        rows[label] = attention, output.logits.argmax(-1).tolist()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    images = (shown * std + mean).clamp(0, 1).movedim(2, -1).numpy()
    out.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number, (clip, target) in enumerate(chosen):
        heat = {f"{label}: {classes[best[number]]}": attention[number] for label, (attention, best) in rows.items()}
        file = _grid(images[number], heat, out / f"clip{number + 1}")
        pictures.append(Picture(f"{classes[target]} ({clip})", file.name))
    return write_page(out / "attention.html", _PAGE, title=title, pictures=pictures)


def _grid(images: np.ndarray, heat: Mapping[str, np.ndarray], path: Path) -> Path:
    """Frames in columns (at most 8, evenly); the input in the first row, then each model's attention over it."""
    import numpy as np
    from matplotlib import pyplot as plt

    from pipelines.reports.score_plots import saved

    columns = np.linspace(0, len(images) - 1, min(len(images), _COLUMNS)).round().astype(int)
    height, width = images.shape[1:3]
    figure, every = plt.subplots(
        1 + len(heat), len(columns), figsize=(1.3 * len(columns), 1.45 * (1 + len(heat))), squeeze=False
    )
    for row, (label, values) in enumerate([("input", None), *heat.items()]):
        for place, frame in enumerate(columns):
            axes = every[row, place]
            axes.imshow(images[frame], extent=(0, width, height, 0))
            if values is not None:
                scale = {"vmin": float(values.min()), "vmax": float(values.max())}  # one for all frames of a clip
                over = {"extent": (0, width, height, 0), "interpolation": "bilinear", "cmap": "jet", "alpha": 0.5}
                axes.imshow(values[frame], **over, **scale)
            axes.set(xticks=[], yticks=[])
        every[row, 0].set_title(label, fontsize=8, loc="left", parse_math=False)
    figure.tight_layout(pad=0.4, h_pad=0.9)
    return saved(figure, path)


_COLUMNS = 8
_PAGE = """<p class="small">Attention of the class token to the patches in the last block of the video tower, mean over
heads, blue low and red high, one scale for all frames of a row. Above each row: the model and the class that it names.
</p>{{ figures(pictures) }}"""
