"""Pictures of predictions and features: per-class gain, t-SNE of videos, correlation of label features.

Each function returns its file.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from pipelines.reports.score_plots import BASE, NOVEL, bare, matrix, saved

_BARS = 60  # classes with a bar of their own; of more, the ends are drawn
_VIDEOS, _CLASSES = 2000, 20
_NAMES = 40  # classes whose names can be read at the side of one of two matrices


@dataclass(frozen=True)
class Predicted:
    """Predictions of a test set, as ``predictions.npz`` keeps them.

    Attributes:
        clips: ids (N,).
        targets: classes (N,).
        scores: of each class (N,C).
        video: features of the clips (N,E), if kept.
        text: features of the classes (C,E), if kept.
    """

    clips: np.ndarray
    targets: np.ndarray
    scores: np.ndarray
    video: np.ndarray | None
    text: np.ndarray | None

    @property
    def best(self) -> np.ndarray:
        """Each clip's best class (N,); where its own class ties with others, another one, as scores count ties."""
        rows = np.arange(len(self.targets))
        others = self.scores.astype(np.float64)
        others[rows, self.targets] = -np.inf
        wins = self.scores[rows, self.targets] > others.max(1)
        return np.where(wins, self.targets, others.argmax(1))

    @property
    def right(self) -> np.ndarray:
        """Whether each clip's best class is its own."""
        found: np.ndarray = self.best == self.targets
        return found

    def fits(self, classes: int) -> bool:
        """Return whether there are this many classes, and a row for each clip."""
        videos = len(self.targets)
        rows = [part for part in (self.clips, self.scores, self.video) if part is not None]
        same = all(len(part) == videos for part in rows) and self.scores.shape == (videos, classes)
        inside = (
            np.issubdtype(self.targets.dtype, np.integer) and 0 <= self.targets.min() <= self.targets.max() < classes
        )
        return bool(same and inside and (self.text is None or len(self.text) == classes))

    def on(self, other: Predicted, classes: Sequence[str], others: Sequence[str]) -> Predicted | None:
        """Return these predictions for the other's clips, in the other's order of clips and of classes.

        None unless both have classes of the same names, and these have all of the other's clips with the same targets.

        Args:
            other: the predictions to compare with.
            classes: names of these classes.
            others: names of the other's classes.
        """
        if sorted(classes) != sorted(others) or len(set(classes)) < len(classes):
            return None
        row_of = {clip: row for row, clip in enumerate(self.clips.tolist())}
        if not row_of.keys() >= set(other.clips.tolist()):
            return None
        rows = np.array([row_of[clip] for clip in other.clips.tolist()])
        columns = np.array([list(classes).index(name) for name in others])
        if not np.array_equal(self.targets[rows], columns[other.targets]):
            return None
        video = None if self.video is None else self.video[rows]
        text = None if self.text is None else self.text[columns]
        return Predicted(other.clips, other.targets, self.scores[rows][:, columns], video, text)


def predicted(arrays: Mapping[str, np.ndarray], name: str) -> Predicted | None:
    """Return the test set ``name`` of ``predictions.npz``; None if it has no scores, as for retrieval."""
    clips, targets, scores = (arrays.get(f"{name}/{part}") for part in ("clip_id", "target", "score"))
    if clips is None or targets is None or scores is None or not len(targets):
        return None
    return Predicted(clips, targets, scores, arrays.get(f"{name}/video"), arrays.get(f"{name}/text"))


def class_gain(ours: Predicted, zero_shot: Predicted, classes: Sequence[str], path: Path) -> Path:
    """Draw the accuracy of each class minus zero-shot's, in points, sorted; of more than 60 classes the two ends."""
    counts = np.bincount(ours.targets, minlength=len(classes))
    gains = np.bincount(ours.targets, ours.right.astype(float) - zero_shot.right, len(classes))
    shown = np.flatnonzero(counts)
    gain = 100 * gains[shown] / counts[shown]
    order = np.argsort(gain, kind="stable")
    cut = len(order) > _BARS
    if cut:
        order = np.concatenate([order[: _BARS // 2], order[-_BARS // 2 :]])
    values, names = gain[order], [classes[shown[i]] for i in order]
    figure, axes = plt.subplots(figsize=(6.5, max(2.2, 0.17 * len(order) + 0.8)))
    axes.barh(range(len(order)), values, color=[BASE if v >= 0 else NOVEL for v in values], height=0.75)
    axes.set_yticks(range(len(order)), names, fontsize=7, parse_math=False)
    axes.set_ylim(-0.7, len(order) - 0.3)
    if cut:
        axes.axhline(_BARS / 2 - 0.5, color="#444", linewidth=1, linestyle=":")
    axes.set_xlim(min(0.0, *values) * 1.05 - 0.5, max(5.0, *values) * 1.05)
    axes.axvline(0, color="#444", linewidth=0.8)
    mean = 100 * float(ours.right.mean() - zero_shot.right.mean())
    middle = f"; {len(gain) - _BARS} classes between are not drawn" if cut else ""
    axes.set_xlabel(f"gain over zero-shot (points of top-1; scored videos: {mean:+.1f}{middle})")
    axes.grid(axis="x", alpha=0.25)
    bare(axes)
    return saved(figure, path)


def embeddings(
    ours: Predicted, zero_shot: Predicted | None, classes: Sequence[str], path: Path, *, label: str
) -> Path | None:
    """Draw t-SNE of video features coloured by class (ViLT-CLIP figure 3), next to zero-shot's if it is given.

    At most 2000 videos of 20 classes, drawn with a fixed seed. None if there are too few videos, or no features.
    """
    sides = [(name, p.video) for name, p in ((label, ours), ("zero-shot", zero_shot)) if p and p.video is not None]
    rows = rows_drawn(ours.targets)
    if ours.video is None or len(rows) < 8:
        return None
    kinds = np.unique(ours.targets[rows])
    figure, every = plt.subplots(1, len(sides), figsize=(4.6 * len(sides), 4.4), squeeze=False)
    colours = plt.get_cmap("tab20")(np.arange(len(kinds)) % 20)
    for axes, (name, features) in zip(every.flat, sides, strict=True):
        flat = _flat(features[rows].tobytes(), features.dtype.str, features.shape[1])
        for number, kind in enumerate(kinds):
            mine = ours.targets[rows] == kind
            axes.scatter(
                *flat[mine].T, s=9, color=colours[number], label=classes[kind] if axes is every.flat[0] else None
            )
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.set(xticks=[], yticks=[])
    legend = figure.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7, markerscale=2)
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.tight_layout()
    return saved(figure, path)


def rows_drawn(targets: np.ndarray, most: int = _VIDEOS) -> np.ndarray:
    """Return the rows of at most ``most`` videos of at most ``_CLASSES`` classes, the same for the same targets."""
    rng = np.random.default_rng(0)
    kinds = np.unique(targets)
    chosen = rng.permutation(kinds)[:_CLASSES]
    rows = np.flatnonzero(np.isin(targets, chosen))
    return np.sort(rng.permutation(rows)[:most])


@functools.lru_cache(maxsize=16)
def _flat(content: bytes, kind: str, width: int) -> np.ndarray:
    """Return t-SNE (N,2) of features (N, ``width``); bytes, as the same zero-shot features are asked for many times."""
    from sklearn.manifold import TSNE

    features = np.frombuffer(content, kind).reshape(-1, width).astype(np.float32)
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    perplexity = min(30.0, (len(features) - 1) / 3)
    flat: np.ndarray = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(features)
    return flat


def label_correlation(
    ours: np.ndarray, zero_shot: np.ndarray | None, classes: Sequence[str], path: Path, *, label: str
) -> Path:
    """Draw cosines between the classes' text features (C,E) (M2-CLIP figure 2), next to zero-shot's, on one scale."""
    sides = [(name, _cosines(f)) for name, f in ((label, ours), ("zero-shot", zero_shot)) if f is not None]
    others = np.concatenate([m[~np.eye(len(m), dtype=bool)] for _, m in sides])
    named = len(classes) <= _NAMES
    side = float(np.clip(0.15 * len(classes), 3.0, 5.5))
    names = 0.05 * max(map(len, classes)) if named else 0.4  # inches next to the matrices
    size = (side * len(sides) + names + 1.3, side + names + 0.3)
    figure, every = plt.subplots(1, len(sides), figsize=size, squeeze=False, layout="constrained")
    for number, (axes, (name, cosines)) in enumerate(zip(every.flat, sides, strict=True)):
        low, left = float(others.min()), number == 0
        image = matrix(axes, cosines, classes if named else None, cmap="viridis", low=low, left=left)
        mean = cosines[~np.eye(len(cosines), dtype=bool)].mean()
        axes.set_title(f"{name}: mean {mean:.2f}", fontsize=9, parse_math=False)
        if not named:
            axes.set_xlabel("class, in the list's order", fontsize=8)
    figure.colorbar(image, ax=every, fraction=0.03, pad=0.02, label="cosine of label features")
    return saved(figure, path)


def _cosines(features: np.ndarray) -> np.ndarray:
    unit = features.astype(np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-6)
    cosines: np.ndarray = unit @ unit.T
    return cosines
