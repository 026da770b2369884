"""Pretrain the toy CLIP: ``python -m pipelines.toyworld.pretrain --out toy_clip.safetensors``.

Still frames and captions only, in three stages: the vision tower learns what and where things are; the text tower
learns to meet its features; then both learn together with CLIP's contrastive loss. All schedules count steps.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.run_script import run_script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from open_clip.model import CLIP
    from torch import Tensor, nn

    from pipelines.toyworld.stills import Stills


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights, except the code."""

    seed: int = 0
    stills: int = 40_000
    batch: int = 96
    vision_steps: int = 1800
    text_steps: int = 400
    joint_steps: int = 600
    learning_rate: float = 2e-3


def _smooth_start(model: CLIP) -> None:
    """Start the vision tower with sine positions and low-frequency patch filters, which save it most of the steps."""
    import torch

    visual = model.visual
    width, patch = visual.conv1.weight.shape[0], visual.conv1.weight.shape[-1]
    grid = visual.grid_size[0]
    rate = 30.0 ** (-torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    waves = [wave(axis.flatten()[:, None] * rate) for axis in (columns, rows) for wave in (torch.sin, torch.cos)]
    step = torch.arange(patch) + 0.5
    cosines = torch.cos(math.pi * step * torch.arange(patch)[:, None] / patch)
    cosines /= cosines.norm(dim=1, keepdim=True)
    channels = torch.tensor([[0.58, 0.58, 0.58], [0.7, 0.0, -0.7], [0.4, -0.82, 0.4]])  # grey and two colour contrasts
    plain = [
        channels[c][:, None, None] * torch.outer(cosines[a], cosines[b])
        for a, b in sorted(((a, b) for a in range(patch) for b in range(patch)), key=sum)
        for c in range(3)
    ]
    mixing = torch.linalg.qr(torch.randn(width, width))[0]
    with torch.no_grad():
        visual.positional_embedding[1:] = 0.5 * torch.cat(waves, 1)
        visual.conv1.weight.copy_((0.3 * mixing @ torch.stack(plain[:width]).flatten(1)).view_as(visual.conv1.weight))


class _Lessons:
    """The losses: attributes of the frame, of each patch, words of the caption, and frame against caption."""

    def __init__(self, model: CLIP, stills: Stills) -> None:
        from torch import nn

        from pipelines.toyworld.draw import COLOURS, KINDS, SCENES
        from pipelines.toyworld.words import DIRECTIONS, MANNERS

        self.model, self.stills = model, stills
        self.token_ids, self.tokens = stills.tokens.unique(
            return_inverse=True
        )  # sorted: padding stays 0, end the largest
        embed, width = model.visual.proj.shape[1], model.visual.proj.shape[0]
        sizes = {"kind": len(KINDS), "scene": len(SCENES), "colour": len(COLOURS), "place": 3}
        self.heads = nn.ModuleDict({name: nn.Linear(embed, size) for name, size in sizes.items()})
        self.words = nn.Embedding(len(self.token_ids), model.token_embedding.weight.shape[1])
        nn.init.normal_(self.words.weight, std=0.02)
        self.heads["patch"] = nn.Linear(width, len(KINDS) + 1)
        self.heads["manner"] = nn.Linear(embed, len(MANNERS) + 1)
        self.heads["direction"] = nn.Linear(embed, len(DIRECTIONS) + 1)

    def see(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Features of frames under random brightness and tint: (n, E) and the patches' (n, P, D)."""
        import torch

        pictures = normalise(self.stills.pictures[rows])
        pictures = pictures * (1 + 0.15 * torch.randn(len(rows), 1, 1, 1)) + 0.1 * torch.randn(len(rows), 3, 1, 1)
        return self.model.visual(pictures)  # type: ignore[no-any-return]

    def _read(self, tokens: Tensor) -> Tensor:
        """Features (n, E) of captions; short ones are not padded to the length of the long ones."""
        import torch

        model = self.model
        lengths = (tokens > 0).sum(1)
        features = torch.empty(len(tokens), model.text_projection.shape[1])
        for rows in ((lengths <= 16).nonzero().flatten(), (lengths > 16).nonzero().flatten()):
            if not len(rows):
                continue
            longest = int(lengths[rows].max())
            x = self.words(tokens[rows, :longest]) + model.positional_embedding[:longest]
            x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:longest, :longest]))
            ends = tokens[rows].argmax(1)
            features[rows] = x[torch.arange(len(rows)), ends] @ model.text_projection
        return features

    def attributes(self, features: Tensor, patches: Tensor, rows: Tensor) -> Tensor:
        import torch
        from torch.nn import functional

        stills, heads = self.stills, self.heads
        loss = functional.mse_loss(heads["place"](features), stills.place[rows])
        for name, weight in (("kind", 2), ("scene", 1), ("colour", 1)):
            loss = loss + weight * functional.cross_entropy(heads[name](features), getattr(stills, name)[rows])
        seen = heads["patch"](patches).flatten(0, 1)
        weights = torch.ones(seen.shape[1])
        weights[-1] = 0.2  # most patches show no object
        return loss + functional.cross_entropy(seen, stills.patch_kinds[rows].flatten(), weights)

    def contrast(self, features: Tensor, rows: Tensor) -> Tensor:
        """CLIP's symmetric loss, and a small one that keeps captions apart that differ in their motion words."""
        import torch
        from torch.nn import functional

        choice = torch.randint(self.stills.tokens.shape[1], (len(rows),))
        text = functional.normalize(self._read(self.tokens[rows, choice]), dim=-1)
        logits = self.model.logit_scale.exp() * functional.normalize(features, dim=-1) @ text.T
        diagonal = torch.arange(len(rows))
        words = self.stills.motion_words[rows, choice]
        apart = torch.zeros(())
        for i, name in enumerate(("manner", "direction")):
            seen = 10 * self.heads[name](text)
            weights = torch.ones(seen.shape[1])
            weights[0] = 0.1  # most captions hold no such word
            apart = apart + functional.cross_entropy(seen, words[:, i], weights)
        return (
            functional.cross_entropy(logits, diagonal) + functional.cross_entropy(logits.T, diagonal)
        ) / 2 + 0.3 * apart


def normalise(pictures: Tensor) -> Tensor:
    """Turn uint8 (N, H, W, 3) into CLIP's normalised (N, 3, H, W)."""
    import torch
    from einops import rearrange
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    mean, std = torch.tensor(OPENAI_DATASET_MEAN), torch.tensor(OPENAI_DATASET_STD)
    return rearrange((pictures.float() / 255 - mean) / std, "... height width colour -> ... colour height width")


def _stage(
    name: str,
    steps: int,
    parameters: Iterable[nn.Parameter],
    recipe: Recipe,
    loss_of: Callable[[Tensor, float], Tensor],
) -> None:
    """Run ``steps`` of AdamW, warmed up at first and decaying in the second half.

    ``loss_of`` gets the rows of a batch and the share of steps done.
    """
    import torch

    trained = list(parameters)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    order = torch.empty(0, dtype=torch.long)
    began = time.monotonic()
    for step in range(steps):
        if len(order) < recipe.batch:
            order = torch.randperm(recipe.stills)
        rows, order = order[: recipe.batch], order[recipe.batch :]
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 50)
            group["lr"] = recipe.learning_rate * warm * min(1.0, 2 * (1 - step / steps))
        loss = loss_of(rows, step / steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            spent = time.monotonic() - began
            print(f"{name}: step {step + 1}/{steps}, loss {loss.item():.3f}, {spent:.0f} s", flush=True)


def pretrain(recipe: Recipe) -> tuple[CLIP, list[int]]:
    """Train a toy CLIP by ``recipe``; also returns the ids of the tokens that its captions use."""
    import torch

    from pipelines.toyworld.stills import make_stills
    from vlmodels.toy import build_toy_clip

    torch.manual_seed(recipe.seed)
    stills = make_stills(recipe.stills, recipe.seed)
    model = build_toy_clip(None)
    _smooth_start(model)
    model.visual.output_tokens = True
    lessons = _Lessons(model, stills)

    vision = [*model.visual.parameters(), *lessons.heads.parameters()]
    skipped = ("visual.", "token_embedding.")  # the token table is filled from `lessons.words` at the end
    text = [p for name, p in model.named_parameters() if not name.startswith(skipped)]
    text += [*lessons.words.parameters(), *lessons.heads.parameters()]

    def learn_to_see(rows: Tensor, _done: float) -> Tensor:
        return lessons.attributes(*lessons.see(rows), rows)

    def learn_to_name(rows: Tensor, _done: float) -> Tensor:
        return lessons.contrast(seen[rows], rows)

    def learn_both(rows: Tensor, done: float) -> Tensor:
        features, patches = lessons.see(rows)
        return lessons.contrast(features, rows) + 0.3 * (1 - done) * lessons.attributes(features, patches, rows)

    _stage("vision", recipe.vision_steps, vision, recipe, learn_to_see)
    with torch.no_grad():
        seen = torch.cat([lessons.see(rows)[0] for rows in torch.arange(recipe.stills).split(250)])
    _stage("text", recipe.text_steps, text, recipe, learn_to_name)
    _stage("joint", recipe.joint_steps, list(dict.fromkeys([*vision, *text])), recipe, learn_both)
    with torch.no_grad():
        model.token_embedding.weight[lessons.token_ids] = lessons.words.weight
    return model, lessons.token_ids.tolist()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Pretrain the toy CLIP on drawn still frames (about 15 minutes).")
    parser.add_argument("--out", type=Path, required=True, help="weight file to write (.safetensors)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    import torch

    from vlmodels.toy import save_toy_clip

    torch.set_num_threads(arguments.threads)
    recipe = Recipe(seed=arguments.seed)
    model, token_ids = pretrain(recipe)
    save_toy_clip(model, arguments.out, token_ids=token_ids, recipe=asdict(recipe))
    print(f"wrote {arguments.out} ({arguments.out.stat().st_size / 1e6:.2f} MB, {len(token_ids)} token rows)")


if __name__ == "__main__":
    run_script(main)
