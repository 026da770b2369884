"""The papers' ablations and our own, scaled to the towers of a backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path

from tune_spaces.ablation_file import Ablation, Row, read_ablation, table_names
from tune_spaces.layer_ranges import PAPER_DEPTH, scale_layers
from tune_spaces.spaces import Depths, tower_depth, tower_of
from vlmodels import methods
from vlmodels.errors import UserError, nearest

_FOLDERS = tuple(Path(__file__).parent / name for name in ("published", "own"))  # METHOD.toml in each


def ablation_names(method: str) -> list[str]:
    """List the names of a method's ablations, the published ones first.

    Raises:
        UserError: the method is unknown.
    """
    known = methods.names()
    if method not in known:
        raise UserError(f"unknown method '{method}'{nearest(method, known)}; known methods: {', '.join(known)}")
    return list(_tables(method))


def _tables(method: str) -> dict[str, Path]:
    """Map the names of a method's ablations to their files."""
    files = [folder / f"{method}.toml" for folder in _FOLDERS]
    return {name: path for path in files if path.exists() for name in table_names(path)}


def load_ablation(method: str, name: str, depths: Depths) -> Ablation:
    """Load an ablation by its name, scaled to towers of these depths.

    The papers count ranges and numbers of layers in towers of 12. ``notes`` list what each became. Rows that become
    the same setting stay separate rows.

    Raises:
        UserError: the method or the ablation is unknown.
    """
    known = ablation_names(method)
    if not known:
        others = ", ".join(sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.toml")}))
        raise UserError(f"{method} has no ablations; {others} have")
    if name not in known:
        raise UserError(f"{method} has no ablation '{name}'{nearest(name, known)}; it has {', '.join(known)}")
    return _scale_ablation(read_ablation(_tables(method)[name], name), _layer_counts(method, depths))


def _layer_counts(method: str, depths: Depths) -> dict[str, int]:
    """Map the method's settings that choose layers to the number of layers they choose from."""
    counts = {}
    for f in fields(methods.get(method).Config):
        tower = tower_of(f.metadata.get("tune")) or tower_of(f.metadata.get("tune_apart"))
        if tower:
            counts[f"method.{f.name}"] = tower_depth(tower, depths)
    return counts


def _scale_ablation(ablation: Ablation, layer_counts: Mapping[str, int]) -> Ablation:
    """Scale the settings of these keys from the paper's 12 layers to the given numbers of layers."""
    rows = tuple(replace(row, setting=_scale_setting(row, layer_counts)) for row in ablation.rows)
    notes = [*_scaling_notes(ablation.rows, rows, layer_counts), *_same_setting_notes(rows)]
    return replace(ablation, rows=rows, notes=(*ablation.notes, *notes))


def _scale_setting(row: Row, layer_counts: Mapping[str, int]) -> dict[str, str]:
    return {
        key: scale_layers(value, layer_counts[key]) if key in layer_counts else value
        for key, value in row.setting.items()
    }


def _scaling_notes(printed: tuple[Row, ...], scaled: tuple[Row, ...], layer_counts: Mapping[str, int]) -> Iterator[str]:
    changes: dict[str, dict[str, str]] = {}
    for before, after in zip(printed, scaled, strict=True):
        for key, value in after.setting.items():
            if value != before.setting[key]:
                changes.setdefault(key, {})[before.setting[key]] = value
    for key, pairs in changes.items():
        became = ", ".join(f"{theirs} is {ours}" for theirs, ours in pairs.items())
        yield f"{key} counts {PAPER_DEPTH} layers in the paper and {layer_counts[key]} here: {became}"


def _same_setting_notes(rows: tuple[Row, ...]) -> Iterator[str]:
    labels_by_setting: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for row in rows:
        labels_by_setting.setdefault(tuple(row.setting.items()), []).append(row.label)
    for labels in labels_by_setting.values():
        if len(labels) > 1:
            yield f"{' and '.join(labels)} are one setting here"
