"""The data of a run as MLflow's inputs: a data set for each list, with the digest of its part of the split."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.config.plain import digest_of
from pipelines.storage.place import without_secrets

if TYPE_CHECKING:
    from pipelines.protocols.split import Example, Split

CONTEXT = "mlflow.data.context"
"""MLflow's tag for what a data set was used for."""
LONGEST_DIGEST = 36
"""Characters that MLflow takes."""


@dataclass(frozen=True, slots=True)
class DataInput:
    """A list of clips that a run used.

    Attributes:
        context: train, select or test.
        name: of the data set and the list.
        digest: of the clips, their classes and their files.
        source: where the ingested data is.
        clips: how many.
    """

    context: str
    name: str
    digest: str
    source: str
    clips: int


def inputs_of(split: Split, data: str, *, test: bool = True) -> list[DataInput]:
    """Return the lists that a run uses.

    Args:
        split: of the run.
        data: folder or URI of its training data.
        test: whether the test lists are scored.
    """
    return list(_inputs(split, data, test=test))


def _inputs(split: Split, data: str, *, test: bool) -> Iterator[DataInput]:
    parts: tuple[tuple[str, Sequence[Example]], ...] = (("train", split.train), ("select", split.select))
    for part, examples in parts:
        if examples:
            digest = _digest([split.train_classes, split.captions, split.content], examples)
            yield DataInput(part, f"{split.dataset}/{part}", digest, without_secrets(data), len(examples))
    for one in split.tests if test else ():
        digest = _digest([one.classes, one.captions, one.content, [uri for uri, _ in one.unscored]], one.examples)
        name = one.name if "/" in one.name else f"{split.dataset}/{one.name}"
        yield DataInput("test", name, digest, without_secrets(one.data or data), one.n_listed)


def _digest(about: Sequence[object], examples: Iterable[Example]) -> str:
    return digest_of([about, [(example.clip_id, example.target) for example in examples]])[:LONGEST_DIGEST]


def mlflow_inputs(inputs: Sequence[DataInput]) -> list[Any]:
    """Return MLflow's form of the lists: a ``MetaDataset`` each, which holds no data."""
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    made = []
    for one in inputs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a folder "can be interpreted in multiple ways", all of them the same
            source = resolve_dataset_source(one.source)
        dataset = MetaDataset(source, name=one.name, digest=one.digest)
        tags = [InputTag(CONTEXT, one.context), InputTag("clips", str(one.clips))]
        made.append(DatasetInput(dataset._to_mlflow_entity(), tags))  # noqa: SLF001 - log_inputs takes entities
    return made
