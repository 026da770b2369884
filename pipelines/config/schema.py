"""The settings of a run in groups, each with its defaults, help texts and rules.

Precedence: the defaults here, then the method's preset (a published setting), then what the user sets. The rules of a
group concern its own values; those that need several groups are in ``pipelines/config/check.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.config.plain import digest_of, to_plain
from pipelines.config.protocols import PROTOCOLS

Rule = tuple[bool, str]
"""Whether a rule holds, and the message with the remedy if it does not."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The frozen model that is adapted."""

    name: str = field(default="toy", metadata={"help": "toy, toy-viclip, ViCLIP-B-16 or -L-14, or an open_clip name"})
    pretrained: str | None = field(default=None, metadata={"help": "open_clip tag or weight file; none: random"})
    statistics: Literal["own", "openai", "imagenet", "inception"] = field(
        default="own", metadata={"help": "frames' mean and deviation; own: the weights'; imagenet: ViFi-CLIP's code"}
    )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The place of the ingested clips, and the number of views of a clip that are scored."""

    dir: str = field(default="", metadata={"help": "folder or URI that pipelines/ingest.py made"})
    clips: int = field(default=1, metadata={"help": "temporal views of a test video"})
    crops: int = field(default=1, metadata={"help": "spatial views of a test video (1, 3 or 4)"})
    parts: int = field(
        default=1,
        metadata={"help": "parts of the training clips, each read by one worker alone; 1: every worker reads any clip"},
    )
    probe: bool = field(
        default=False, metadata={"help": "also score shuffled, reversed and single frames: does order matter?"}
    )

    def rules(self) -> list[Rule]:
        """Return what the values must fulfil, each with the message if they do not."""
        return [
            (self.clips >= 1, f"data.clips={self.clips} must be at least 1"),
            (self.crops in (1, 3, 4), f"data.crops={self.crops} must be 1 (centre), or 3 or 4 (along the long side)"),
        ]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of a training clip, drawn once per clip (MSTA section 4.2; strengths as in ViFi-CLIP).

    ``mixup`` and ``cutmix`` are drawn once per pass and worker (``pipelines/training/mixing.py``).
    """

    crop: Literal["resized", "multiscale", "short_side"] = field(
        default="resized",
        metadata={"help": "random crop: resized (by crop_scale), multiscale (ViFi-CLIP's), short_side (M2-CLIP's)"},
    )
    crop_scale: float = field(default=0.08, metadata={"help": "least area of the resized crop; 1: none"})
    randaugment: bool = field(default=False, metadata={"help": "RandAugment before the crop, as M2-CLIP on SSv2"})
    flip: float = field(default=0.5, metadata={"help": "probability of a horizontal flip"})
    jitter: float = field(default=0.8, metadata={"help": "probability of colour jitter"})
    gray: float = field(default=0.2, metadata={"help": "probability of turning gray"})
    mixup: float = field(default=0.0, metadata={"help": "blend pairs of clips by Beta(mixup, mixup); 0: off"})
    cutmix: float = field(
        default=0.0, metadata={"help": "swap a box within pairs, by Beta too; with mixup: one of both"}
    )

    def rules(self) -> list[Rule]:
        """Return what the values must fulfil, each with the message if they do not."""
        probabilities = {"flip": self.flip, "jitter": self.jitter, "gray": self.gray}
        betas = {"mixup": self.mixup, "cutmix": self.cutmix}
        return [
            (0 < self.crop_scale <= 1, f"augment.crop_scale={self.crop_scale} must be in (0, 1]"),
            *(
                (0 <= value <= 1, f"augment.{name}={value} is a probability and must be in [0, 1]")
                for name, value in probabilities.items()
            ),
            *(
                (
                    0 <= value < math.inf,
                    f"augment.{name}={value} is the parameter of a Beta distribution and must be finite and not "
                    "negative; 0 turns it off",
                )
                for name, value in betas.items()
            ),
        ]


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """The protocol that decides which clips train and which are scored (``pipelines/protocols/make_split.py``)."""

    name: str = field(default="b2n", metadata={"help": f"one of {', '.join(PROTOCOLS)}"})
    lists: str | None = field(
        default=None, metadata={"help": "folder of split lists; none: those that ingest kept, else a seeded split"}
    )
    dataset: str | None = field(default=None, metadata={"help": "published data set of the lists (hmdb51, ...)"})
    labels: str | None = field(default=None, metadata={"help": "label CSV of the lists, if it is not found"})
    base_labels: str | None = field(default=None, metadata={"help": "label CSV of the base lists, if it is not found"})
    novel_labels: str | None = field(
        default=None, metadata={"help": "label CSV of the novel lists, if it is not found"}
    )
    hmdb_names: Literal["as_published", "corrected"] = field(
        default="as_published", metadata={"help": "HMDB-51: keep or correct four class names that are swapped"}
    )
    class_names: Literal["dataset", "rephrased"] = field(
        default="dataset",
        metadata={"help": "whose the names in the labels are: the data set's, or rephrased by a language model"},
    )
    train_list: str | None = field(default=None, metadata={"help": "name of the training list (supervised, zero_shot)"})
    test_lists: tuple[str, ...] = field(default=(), metadata={"help": "names of the test lists, with commas"})
    allow_leak: bool = field(
        default=False, metadata={"help": "score test lists that share videos with the training list"}
    )
    tests: tuple[str, ...] = field(
        default=(), metadata={"help": "zero_shot: ingested data to score, as DIR or NAME=DIR, with commas"}
    )
    captions: str | None = field(
        default=None, metadata={"help": "retrieval: captions, if not those in the folder of the data"}
    )
    shots: int = field(default=16, metadata={"help": "training videos per class (few_shot, b2n)"})
    fewer_shots: bool = field(default=False, metadata={"help": "take all videos of classes with fewer"})
    test_fraction: float = field(default=0.3, metadata={"help": "share of a class kept for test (own split)"})
    split_seed: int = field(
        default=1, metadata={"help": "what is test (own split); seed draws the shots from the rest"}
    )
    holdout: float = field(
        default=0.0, metadata={"help": "share of train held out: selects the epoch, and decides what is none of these"}
    )
    holdout_classes: float = field(
        default=0.0, metadata={"help": "share of the training classes held out too, as unseen classes"}
    )
    miss_rate: float = field(
        default=0.05, metadata={"help": "share of right held-out clips that may be taken for none of these"}
    )

    def rules(self) -> list[Rule]:
        """Return what the values must fulfil, each with the message if they do not."""
        return [
            (self.shots >= 1, f"protocol.shots={self.shots} must be at least 1"),
            (0 < self.test_fraction < 1, f"protocol.test_fraction={self.test_fraction} must be between 0 and 1"),
            (self.split_seed >= 0, f"protocol.split_seed={self.split_seed} must not be negative"),
            (0 <= self.holdout < 1, f"protocol.holdout={self.holdout} must be in [0, 1)"),
            (0 <= self.holdout_classes < 1, f"protocol.holdout_classes={self.holdout_classes} must be in [0, 1)"),
            (
                0 < self.miss_rate < 1,
                f"protocol.miss_rate={self.miss_rate} must be between 0 and 1",
            ),
        ]


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Descriptions of classes, for methods that train on them (the class prompt is the method's ``template``)."""

    descriptions: str | None = field(default=None, metadata={"help": "description store (SQLite)"})
    n: int | None = field(default=None, metadata={"help": "with several sources in the store: sentences per class"})
    model: str | None = field(default=None, metadata={"help": "with several sources: the language model"})
    prompt_id: str | None = field(default=None, metadata={"help": "with several sources: the prompt"})


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay (``pipelines/training/optimizer.py: learning_rate``)."""

    lr: float = field(default=1e-3, metadata={"help": "peak learning rate", "tune": {"loguniform": (1e-4, 1e-2)}})
    epochs: int = field(default=11, metadata={"help": "passes over the training clips"})
    warmup_epochs: float = field(default=5.0, metadata={"help": "epochs of linear warm-up"})
    batch_size: int = field(default=32, metadata={"help": "TOTAL clips per step, over all workers"})
    micro_batch: int = field(
        default=0,
        metadata={"help": "clips per worker and pass; 0: all; fewer: accumulate, texts run in each pass"},
    )
    schedule: Literal["through", "restarted"] = field(
        default="through", metadata={"help": "the cosine counts from step 0, or from the warm-up's end"}
    )
    weight_decay: float = field(
        default=1e-3, metadata={"help": "AdamW weight decay", "tune": {"loguniform": (1e-4, 1e-1)}}
    )
    no_decay: Literal["none", "biases", "vectors"] = field(
        default="none", metadata={"help": "not decayed: nothing, biases, or all of one dimension (and scalars)"}
    )
    label_smoothing: float = field(default=0.0, metadata={"help": "share of a label spread over all classes"})
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    min_lr_ratio: float = field(default=0.01, metadata={"help": "final learning rate as a share of lr"})
    precision: Literal["fp32", "bf16"] = field(default="fp32", metadata={"help": "autocast type"})

    def rules(self) -> list[Rule]:
        """Return what the values must fulfil, each with the message if they do not."""
        return [
            (0 < self.lr < math.inf, f"optim.lr={self.lr} must be above 0 and finite"),
            (self.warmup_epochs >= 0, f"optim.warmup_epochs={self.warmup_epochs} must not be negative"),
            (
                self.warmup_epochs < self.epochs or self.epochs == 0,
                f"optim.warmup_epochs={self.warmup_epochs:g} must be below optim.epochs={self.epochs}; lower it",
            ),
            (
                0 <= self.label_smoothing < 1,
                f"optim.label_smoothing={self.label_smoothing} must be in [0, 1); 0 turns it off",
            ),
            (
                0 <= self.weight_decay < math.inf,
                f"optim.weight_decay={self.weight_decay} must be finite and not negative",
            ),
            (
                0 <= self.beta1 < 1 and 0 <= self.beta2 < 1,
                f"optim.beta1={self.beta1} and beta2={self.beta2} must be in [0, 1)",
            ),
            (self.eps > 0, f"optim.eps={self.eps} must be above 0"),
            (0 <= self.min_lr_ratio <= 1, f"optim.min_lr_ratio={self.min_lr_ratio} must be in [0, 1]"),
            (self.epochs >= 0, f"optim.epochs={self.epochs} must not be negative"),
            (self.batch_size >= 1, f"optim.batch_size={self.batch_size} must be at least 1"),
            (self.micro_batch >= 0, f"optim.micro_batch={self.micro_batch} must not be negative (0: the whole share)"),
        ]


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """The number of workers, and what each of them gets.

    These settings change a result only through what is drawn by rank (dropout, mixing) or compares the clips of a rank
    (M2-CLIP's contrastive loss).
    """

    workers: int = field(default=1, metadata={"help": "DDP workers"})
    min_workers: int = field(
        default=0, metadata={"help": "continue with as few while machines are lost (elastic); 0: wait for all"}
    )
    regrow_s: float = field(
        default=60.0,
        metadata={"help": "elastic: seconds between looks for machines that are back; growing begins the epoch again"},
    )
    gpu: bool = field(default=False, metadata={"help": "one GPU for each worker"})
    gpus_per_worker: float = field(default=1.0, metadata={"help": "share of a GPU, for trials of a sweep"})
    cpus_per_worker: float = field(default=1.0, metadata={"help": "CPU cores for each worker"})
    max_failures: int = field(default=2, metadata={"help": "worker failures to recover from"})
    eval_batch: int = field(default=32, metadata={"help": "clips per worker in one evaluation pass"})

    def rules(self) -> list[Rule]:
        """Return what the values must fulfil, each with the message if they do not."""
        return [
            (0 < self.cpus_per_worker < math.inf, f"scale.cpus_per_worker={self.cpus_per_worker} must be above 0"),
            (self.workers >= 1, f"scale.workers={self.workers} must be at least 1"),
            (
                0 <= self.min_workers <= self.workers,
                f"scale.min_workers={self.min_workers} must be at most scale.workers={self.workers} (0: all of them)",
            ),
            (
                0 < self.gpus_per_worker <= 1 and (self.gpus_per_worker == 1 or self.workers == 1),
                f"scale.gpus_per_worker={self.gpus_per_worker:g} must be in (0, 1], and 1 with several workers: NCCL "
                "gives each rank a GPU of its own",
            ),
            (self.eval_batch >= 1, f"scale.eval_batch={self.eval_batch} must be at least 1"),
            (self.regrow_s >= 0, f"scale.regrow_s={self.regrow_s} must not be negative"),
            (self.max_failures >= 0, f"scale.max_failures={self.max_failures} must not be negative"),
        ]


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """The place where runs and models are recorded."""

    uri: str | None = field(default=None, metadata={"help": "MLflow tracking URI; none: no tracking"})
    experiment: str = field(default="vidadapt", metadata={"help": "MLflow experiment"})
    register: str | None = field(default=None, metadata={"help": "register the model under this name"})
    alias: str = field(default="champion", metadata={"help": "alias of the registered version"})
    move_alias: bool = field(default=False, metadata={"help": "move the alias if it points to another run's version"})
    include_weights: bool = field(
        default=False, metadata={"help": "put the backbone's weight file into the registered model"}
    )
    system_metrics_s: float = field(
        default=10.0, metadata={"help": "seconds between samples of each machine's load; 0: none"}
    )

    def rules(self) -> list[Rule]:
        """Return what the values must fulfil, each with the message if they do not."""
        return [
            (
                0 <= self.system_metrics_s < math.inf,
                f"tracking.system_metrics_s={self.system_metrics_s} must be finite and not negative (0: none)",
            )
        ]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a run. ``method_config`` holds the method's own ``Config`` as plain values."""

    method: str = "msta"
    preset: str | None = None
    start: str | None = field(
        default=None, metadata={"help": "run folder or models:/NAME@ALIAS of the same method to start from"}
    )
    method_config: Mapping[str, Any] = field(default_factory=dict)
    backbone: BackboneConfig = BackboneConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    text: TextConfig = TextConfig()
    optim: OptimConfig = OptimConfig()
    scale: ScaleConfig = ScaleConfig()
    tracking: TrackingConfig = TrackingConfig()
    selection: Literal["last", "select", "test-best"] = field(
        default="last", metadata={"help": "epoch to keep; 'test-best' as published (chosen on the test list)"}
    )
    test: bool = field(default=True, metadata={"help": "score the test lists; a sweep leaves that to its winner"})
    seed: int = field(default=1, metadata={"help": "seed, and number of the published training subset"})
    out: str = field(default="runs", metadata={"help": "folder or URI for runs"})

    def digest(self) -> str:
        """Return the digest of all settings that decide the result: without scale, places and tracking."""
        plain = to_plain(self)
        for name in ("scale", "tracking", "out", "text", "start"):
            plain.pop(name)
        # Data, weights, lists and descriptions have digests of their content (``Plan.name``), wherever they lie.
        plain["data"].pop("dir")
        plain["backbone"].pop("pretrained")
        if self.backbone.statistics == "own":  # runs from before this setting keep their digests
            plain["backbone"].pop("statistics")
        if self.protocol.class_names == "dataset":
            plain["protocol"].pop("class_names")
        for name in ("lists", "labels", "base_labels", "novel_labels", "tests", "captions"):
            plain["protocol"].pop(name)
        return digest_of(plain)
