"""Open the ingested data that a configuration names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.config.plain import digest_of
from pipelines.config.schema import TrainConfig
from pipelines.protocols.make_split import make_split
from pipelines.protocols.split import NOTHING, Scoring, Source, Split, clips_of
from pipelines.shards.clip_store import ClipStore
from pipelines.storage.place import is_uri
from pipelines.videos.kept_lists import LISTS
from pipelines.videos.list_folder import kept_dataset
from vlmodels.errors import noted, refuse
from vlmodels.paths import absolute, is_folder, is_there

RESERVED = ("select", "hm", "cost")
"""What a run's metrics hold beside the test sets."""
LONGEST_NAME = 100
_NAME = re.compile(r"[\w.-]([\w. -]*[\w.-])?")


@dataclass(frozen=True)
class PlannedData:
    """The data of a run: the configuration with absolute paths, the opened stores, and the split."""

    config: TrainConfig
    stores: tuple[ClipStore, ...]
    split: Split

    @property
    def digest(self) -> str:
        """Digest of all ingested data."""
        digests = [store.digest for store in self.stores]
        return digests[0] if len(digests) == 1 else digest_of(digests)


def open_data(config: TrainConfig, problems: list[str]) -> PlannedData | None:
    """Open the data that ``config`` names and split it; None, with the reason in ``problems``, where that fails."""
    if not (config.data.dir or config.protocol.tests):  # ``check`` complains, as of a negative seed
        return None
    with noted(problems):
        stores, sources = open_sources(config)
        config = with_absolute_paths(config, stores[0])
        if config.seed < 0:
            return None
        data, *tests = sources if config.data.dir else [NOTHING, *sources]
        split = make_split(config.protocol, data, config.seed, tests=tests, scoring=scoring_of(config, stores[0]))
        refuse([name_problem(test.name) for test in split.tests if name_problem(test.name)])
        return PlannedData(config, tuple(stores), portable(split, stores))
    return None


def open_sources(config: TrainConfig) -> tuple[list[ClipStore], list[Source]]:
    """Open the ingested data sets: the one that trains first (if there is one), then those that are only scored."""
    named = [("", config.data.dir)] if config.data.dir else []
    refuse([f"--test {item}: a name is missing before '='" for item in config.protocol.tests if item[:1] == "="])
    named += [named_test(item) for item in config.protocol.tests]
    stores = [ClipStore(folder) for _, folder in named]
    sources: list[Source] = []
    for (name, _), store in zip(named, stores, strict=True):
        title = name or (config.protocol.dataset if not sources else "") or kept_dataset(store.folder / LISTS)
        sources.append(Source(title or store.name, str(store.folder), clips_of(store.manifest), store.classes))
    problems = [
        f"{store.uri} has {store.segments} frames a clip and {stores[0].uri} {stores[0].segments}: ingest both "
        "with the same --frames"
        for store in stores[1:]
        if store.segments != stores[0].segments
    ]
    problems += [
        f"{store.uri} is sampled in {store.sampling} (stride {store.stride}), {stores[0].uri} in "
        f"{stores[0].sampling} (stride {stores[0].stride}): ingest both with the same --sampling and --stride"
        for store in stores[1:]
        if (store.sampling, store.stride) != (stores[0].sampling, stores[0].stride)
    ]
    names = [source.name for source in sources]
    problems += [f"two data sets are called {name}: write NAME=DIR" for name in set(names) if names.count(name) > 1]
    refuse(problems)
    return stores, sources


def name_problem(name: str) -> str:
    """Return why a test set cannot be called so in MLflow, in files and in pictures, with the remedy; "" if it can."""
    parts = name.split("/")
    if name in RESERVED:
        problem = "is the name of another score"
    elif not all(_NAME.fullmatch(part) and part.strip(" .") for part in parts) or len(name) > LONGEST_NAME:
        problem = f"must be letters, digits, spaces and . _ - alone, at most {LONGEST_NAME}"
    else:
        return ""
    return f"test set {name!r}: its name {problem}; give another (--test NAME=DIR), or rename the folder or list"


def portable(split: Split, stores: Sequence[ClipStore]) -> Split:
    """Return the split with test sets that name their data as any machine opens it, not by this machine's copies."""
    uris = {str(store.folder): store.uri for store in stores}
    return replace(split, tests=tuple(replace(test, data=uris.get(test.data, test.data)) for test in split.tests))


def scoring_of(config: TrainConfig, store: ClipStore) -> Scoring:
    """Return the views of test videos that are scored, and how they are averaged."""
    return Scoring(
        frames=store.segments,
        clips=config.data.clips,
        crops=config.data.crops,
        sampling=store.sampling,
        stride=store.stride,
        short_side=min(store.shape[1:3]),
        average="features" if config.protocol.name == "retrieval" else "softmax",
    )


def with_absolute_paths(config: TrainConfig, store: ClipStore) -> TrainConfig:
    """Return the configuration with absolute paths: workers run in folders of their own."""
    from vlmodels.clip import weight_file  # open_clip: late

    backbone = config.backbone
    file = weight_file(backbone.name, backbone.pretrained)
    return replace(
        config,
        data=replace(config.data, dir=store.uri if config.data.dir else ""),
        protocol=replace(config.protocol, tests=tuple(map(_absolute_test, config.protocol.tests))),
        start=str(absolute(config.start)) if config.start and is_there(config.start) else config.start,
        backbone=replace(backbone, pretrained=str(file) if file else backbone.pretrained),
    )


def named_test(item: str) -> tuple[str, str]:
    """Return name ("" if none is given) and folder or URI of ``NAME=DIR`` or ``DIR``."""
    name, equals, folder = item.partition("=")
    return ("", item) if not equals or is_uri(name) or is_folder(item) else (name, folder)


def _absolute_test(item: str) -> str:
    name, folder = named_test(item)
    place = folder if is_uri(folder) else str(absolute(folder))
    return f"{name}={place}" if name else place
