"""The one description of a run: frozen dataclasses, ``--set a.b=c`` overrides, all complaints in one message.

Precedence: the defaults here, then the method's preset (a published setting), then what the user sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.config.plain import digest_of, to_plain


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which frozen model is adapted."""

    name: str = field(default="toy", metadata={"help": "toy, toy-viclip, ViCLIP-B-16 or -L-14, or an open_clip name"})
    pretrained: str | None = field(default=None, metadata={"help": "open_clip tag or weight file; none: random"})


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the ingested clips lie and how many views of a clip are scored."""

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


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """Which clips train and which are scored; see ``pipelines/protocols/make.py``."""

    name: str = field(default="b2n", metadata={"help": "zero_shot, few_shot, b2n, supervised or retrieval"})
    lists: str | None = field(
        default=None, metadata={"help": "folder of split lists; none: those that ingest kept, else a seeded split"}
    )
    dataset: str | None = field(
        default=None, metadata={"help": "published data set that the lists are of (hmdb51, ...)"}
    )
    labels: str | None = field(default=None, metadata={"help": "label CSV of the lists, if it is not found"})
    base_labels: str | None = field(default=None, metadata={"help": "label CSV of the base lists, if it is not found"})
    novel_labels: str | None = field(
        default=None, metadata={"help": "label CSV of the novel lists, if it is not found"}
    )
    hmdb_names: Literal["as_published", "corrected"] = field(
        default="as_published", metadata={"help": "HMDB-51: leave or put right four class names that are swapped"}
    )
    train_list: str | None = field(default=None, metadata={"help": "name of the training list (supervised, zero_shot)"})
    test_lists: tuple[str, ...] = field(default=(), metadata={"help": "names of the test lists, with commas"})
    allow_leak: bool = field(
        default=False, metadata={"help": "score test lists that share videos with the training list"}
    )
    tests: tuple[str, ...] = field(
        default=(), metadata={"help": "zero_shot: ingested data to score, as DIR or NAME=DIR, with commas"}
    )
    captions: str | None = field(default=None, metadata={"help": "retrieval: captions, if not beside the data"})
    shots: int = field(default=16, metadata={"help": "training videos per class (few_shot, b2n)"})
    fewer_shots: bool = field(default=False, metadata={"help": "take what there is of classes with fewer videos"})
    test_fraction: float = field(default=0.3, metadata={"help": "share of a class kept for test (own split)"})
    split_seed: int = field(
        default=1, metadata={"help": "what is test (own split); seed draws the shots from the rest"}
    )
    holdout: float = field(default=0.0, metadata={"help": "share of train held out to select the epoch"})
    holdout_classes: float = field(
        default=0.0, metadata={"help": "share of the training classes held out too, to select for unseen classes"}
    )


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


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """How many workers, and what each gets.

    They change a result only through what is drawn by rank (dropout, mixing) or compares the clips of a rank (M2-CLIP's
    contrastive loss).
    """

    workers: int = field(default=1, metadata={"help": "DDP workers"})
    min_workers: int = field(
        default=0, metadata={"help": "go on with as few while machines are lost (elastic); 0: wait for all"}
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


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where runs and models are recorded."""

    uri: str | None = field(default=None, metadata={"help": "MLflow tracking URI; none: no tracking"})
    experiment: str = field(default="vidadapt", metadata={"help": "MLflow experiment"})
    register: str | None = field(default=None, metadata={"help": "register the model under this name"})
    alias: str = field(default="champion", metadata={"help": "alias of the registered version"})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run. ``method_config`` is the method's own ``Config``, as plain values."""

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
        """Digest of everything that may change the result but by chance: not the scale, the place or the tracking."""
        plain = to_plain(self)
        for name in ("scale", "tracking", "out", "text", "start"):
            plain.pop(name)
        # Data, weights, lists and descriptions have digests of their content (``Plan.name``), wherever they lie.
        plain["data"].pop("dir")
        plain["backbone"].pop("pretrained")
        for name in ("lists", "labels", "base_labels", "novel_labels", "tests", "captions"):
            plain["protocol"].pop(name)
        return digest_of(plain)
