"""Size and cost of a method on a backbone: parameters and multiply-accumulates, counted on shapes without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmodels import methods, published
from vlmodels.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from vlmodels.methods.base import Method


PLACEHOLDERS = 400  # classes of Kinetics-400, whose classifiers the papers count


def describe(
    method: str, backbone: str, *, preset: str | None = None, frames: int = 8, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """Count parameters and multiply-accumulates (1 MAC = 2 FLOPs; matrix products and convolutions only).

    Args:
        method: name of a method.
        backbone: name of a backbone.
        preset: name of one of the method's presets; its default configuration if None.
        frames: frames of the one view that ``gmacs_video`` is for.
        classes: names of the training classes, for methods with a classifier of fixed classes; 400 placeholders if
            empty.

    Returns:
        ``trainable`` and ``total`` parameters, ``adapter_bytes`` (fp32 tensors), ``gmacs_video`` (the video tower
        with its adapters; without OmniCLIP's class prompts per video, which add 2.5 for 400 classes),
        ``gmacs_text_per_class`` at the full context length, as papers count it (training is cheaper: it cuts prompts
        after the longest and runs the frozen layers below the first adapter once), ``gmacs_text`` for all classes,
        and, where a paper prints any, ``published`` values.

    Raises:
        UserError: the method, backbone or preset is unknown, or the configuration does not fit the backbone.
    """
    built = _build(method, backbone, preset, frames, classes)
    count = len(classes) or PLACEHOLDERS
    gmacs_video, gmacs_text = _costs(built, frames)
    result: dict[str, Any] = {
        "method": method,
        "preset": preset,
        "backbone": backbone,
        "frames": frames,
        "classes": count,
        "trainable": sum(p.numel() for p in built.trainable_parameters()),
        "total": sum(p.numel() for p in built.parameters()),
        "adapter_bytes": sum(t.numel() * t.element_size() for t in built.adapter_state_dict().values()),
        "gmacs_video": round(gmacs_video, 3),
        "gmacs_text_per_class": round(gmacs_text, 4),
        "gmacs_text": round(count * gmacs_text, 3),
    }
    figure = published.figure(method, preset, backbone, frames)
    if figure is not None and figure.source:
        result["published"] = _printed(figure)
    return result


def placeholders() -> list[str]:
    """Return names of classes for counting alone."""
    return [f"class {number}" for number in range(PLACEHOLDERS)]


def _build(method: str, backbone: str, preset: str | None, frames: int, classes: Sequence[str]) -> Method:
    """Build the method on a backbone of shapes alone (device "meta")."""
    cls = methods.get(method)
    import torch  # late, as the next: `python -m vlmodels --help` answers at once

    from vlmodels.clip import create
    from vlmodels.tokenizers import WordCounter

    if preset is not None and preset not in cls.presets:
        raise UserError(
            f"{method} has no preset '{preset}'{nearest(preset, cls.presets)}; it has {', '.join(cls.presets)}"
        )
    if frames < 1:
        raise UserError(f"frames={frames} must be at least 1")
    config = cls.Config() if preset is None else cls.presets[preset].method
    with torch.device("meta"):
        # placeholder names are never encoded, so no tokenizer is fetched for them
        counter = None if classes else WordCounter()
        built = create(backbone, weights=None, num_frames=frames, tokenizer=counter)
        return cls(built, config, classes or placeholders()).eval()


def _costs(method: Method, frames: int) -> tuple[float, float]:
    """Count multiply-accumulates (1e9) of one clip and of one text of full length."""
    import torch  # late: see _build

    spec = method.backbone.spec
    with torch.device("meta"):
        clip = torch.empty(1, frames, 3, *spec.image_size)
        tokens = torch.empty(1, spec.context_length, dtype=torch.long)
    return gmacs(method.encode_video, clip), gmacs(method.backbone.encode_text, tokens)


def gmacs(encode: Callable[..., object], inputs: Tensor) -> float:
    """Count multiply-accumulates (1e9) of ``encode(inputs)``: matrix products and convolutions."""
    import torch  # late: see _build
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encode(inputs)
    return float(counter.get_total_flops() / 2e9)


def _printed(figure: published.Figure) -> dict[str, str]:
    """Return what the paper prints about a setting, without empty values."""
    printed = {
        "trainable": figure.printed_trainable,
        "gmacs_video": figure.printed_gmacs,
        "speed": figure.printed_speed,
        "source": figure.source,
        "remark": figure.remark,
    }
    return {key: value for key, value in printed.items() if value}
