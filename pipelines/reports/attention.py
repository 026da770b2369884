"""Attention of the class token, drawn over frames: where a model looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pipelines.shards.clip_store import ClipStore
    from vlmodels.families.views import Call
    from vlmodels.methods.base import Method, Output


_COLUMNS = 8  # frames of a clip that are drawn

Tested = Mapping[str, tuple["list[str]", "np.ndarray", "np.ndarray"]]


def targets_of(run: Path) -> Tested:
    """Return classes, scored clips (N,) and their targets (N,) of each test set of a run.

    Raises:
        UserError: the run is not finished, or has no classes.
    """
    import numpy as np

    from pipelines.records.find import DAMAGED
    from pipelines.records.run_file import PREDICTIONS, RECORD, read
    from vlmodels.errors import UserError

    try:
        record = read(run / RECORD)
        sets = {name: list(classes) for name, classes in record.classes.items() if classes}
        with np.load(run / PREDICTIONS, allow_pickle=False) as arrays:
            tested = {n: (names, arrays[f"{n}/clip_id"], arrays[f"{n}/target"]) for n, names in sets.items()}
    except (*DAMAGED, KeyError, UserError) as error:
        raise UserError(f"{run} is not a folder of a finished run ({error})") from error
    if not tested:
        raise UserError(f"{run} is of protocol {record.protocol}; attention needs a protocol with classes")
    return tested


def choose(
    run: Path, tested: Tested, store: ClipStore, wanted: str | None, count: int
) -> tuple[str, list[str], list[tuple[str, int]]]:
    """Return the test set's name and classes, and (clip, target) of ``count`` clips, spread over the classes.

    Raises:
        UserError: there is no such test set, or the data have none of its clips.
    """
    from vlmodels.errors import UserError

    name = next(iter(tested)) if wanted is None else wanted
    if name not in tested:
        raise UserError(f"no test set '{name}' in {run}; there are {', '.join(tested)}")
    classes, ids, targets = tested[name]
    columns = (store.manifest.column(column).to_pylist() for column in ("clip_id", "status"))
    stored = {clip for clip, status in zip(*columns, strict=True) if status == "ok"}
    clips = [(str(c), int(t)) for c, t in zip(ids, targets, strict=True) if str(c) in stored]
    if not clips:
        raise UserError(f"no test clip of {run} is in {store.uri}; give the data that the run was tested on")
    return name, classes, _spread(clips)[:count]


def _spread(clips: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Sort (clip, target): the first of each class, the second of each class, and so on."""
    counts: dict[int, int] = {}
    ranked = []
    for clip, target in clips:
        counts[target] = counts.get(target, 0) + 1
        ranked.append((counts[target], clip, target))
    ranked.sort(key=lambda entry: entry[0])
    return [(clip, target) for _, clip, target in ranked]


def class_attention(method: Method, frames: Tensor) -> tuple[Output, np.ndarray]:
    """Return a method's output for frames (B,T,3,H,W) and its class token's attention (B,T,rows,columns), last block.

    The mean over heads is a share of all tokens' attention; a joint tower has one class token for all frames. In towers
    that pool otherwise than by a class token, it is the mean attention of all tokens. The method keeps a hook at its
    last layer, which changes nothing.
    """
    import torch
    from einops import reduce

    from vlmodels.clip_context import ClipContext
    from vlmodels.layout import split_tokens

    spec = method.backbone.spec
    block = method.backbone.block("video", spec.video_layers)
    project = block.project
    seen: dict[str, Tensor] = {}

    def watched(x: Tensor, call: Call, weight: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Keep the queries and keys of the block's last run."""
        seen["query"], seen["key"], value = project(x, call, weight)
        return seen["query"], seen["key"], value

    # after the method's own; a weight of queries and keys makes the block's attention run in parts
    method.backbone.add("video", spec.video_layers, "qkv_weight", lambda weight, _: weight)
    block.project = watched  # type: ignore[method-assign]
    try:
        with torch.inference_mode():
            output: Output = method.eval()(frames)
    finally:
        del block.project
    query, key = seen["query"], seen["key"]
    query = query[:, :, :1] if method.backbone.reads_class_token else query
    scores = torch.einsum("bhqd,bhnd->bhqn", query, key) / key.shape[-1] ** 0.5
    shares = reduce(scores.float().softmax(-1), "b head query n -> b n 1", "mean")
    batch, time = frames.shape[:2]
    context = ClipContext(batch, time, spec.grid, spec.video_layers, "video", spec.joint, spec.prefix)
    return output, split_tokens(shares, context).patches[..., 0].cpu().numpy()


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
        models: methods on backbones of one kind, by the names of their rows.
        store: the ingested data.
        chosen: clips and their classes, as indices.
        classes: names of the classes.
        out: folder; made if it does not exist.
        title: of the page.
    """
    import torch
    from einops import rearrange

    from pipelines.reports.page import TEMPLATES, Picture, write_page
    from pipelines.shards.views import views
    from vlmodels.preprocess import eval_views

    spec = next(iter(models.values())).backbone.spec
    frames = torch.cat([eval_views(torch.from_numpy(views(store, clip, 1)), spec) for clip, _ in chosen])
    rows: dict[str, tuple[np.ndarray, list[int]]] = {}
    for label, method in models.items():
        method.set_classes(classes)
        output, attention = class_attention(method, frames)
        rows[label] = attention, output.logits.argmax(-1).tolist()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    images = rearrange((frames * std + mean).clamp(0, 1), "b t c h w -> b t h w c").numpy()
    out.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number, (clip, target) in enumerate(chosen):
        heat = {f"{label}: {classes[best[number]]}": attention[number] for label, (attention, best) in rows.items()}
        file = _grid(images[number], heat, out / f"clip{number + 1}")
        pictures.append(Picture(f"{classes[target]} ({clip})", file.name))
    return write_page(out / "attention.html", TEMPLATES / "attention.html.j2", title=title, pictures=pictures)


def _grid(images: np.ndarray, heat: Mapping[str, np.ndarray], path: Path) -> Path:
    """Draw frames in columns (at most 8, evenly): the input in the first row, then each model's attention over it."""
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
