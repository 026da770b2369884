"""Search of a folder of embeddings by a text's feature: where ``pipelines.prediction`` is plugged in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.prediction.search import rank
from pipelines.prediction.stored_features import open_embeddings
from pipelines.serving.limits import RefusedError
from pipelines.serving.messages import ModelFacts

Hits = list[dict[str, Any]]
"""``video``, ``start``, ``end`` and ``score`` (cosine) of each, best first."""


@dataclass(frozen=True, slots=True)
class SearchIndex:
    """A folder of embeddings.

    Attributes:
        folder: where it is.
        adapter: SHA-256 of the adapter that made it; "" if unknown.
        find: returns the best hits for a normalised feature (E).
        warning: what is missing in it; "" if nothing is.
    """

    folder: str
    adapter: str
    find: Callable[[NDArray[np.float32], int], Hits]
    warning: str = ""

    @classmethod
    def open(cls, folder: str) -> SearchIndex:
        """Open a folder that ``predict.py --embeddings`` made.

        Raises:
            UserError: it holds no embeddings.
        """
        embeddings = open_embeddings(folder)

        def find(feature: NDArray[np.float32], topk: int) -> Hits:
            opened = open_embeddings(folder)  # it counts while it reads, so each request has its own
            (hits,) = rank(opened, feature[None], topk).hits
            return [
                {"video": hit.video, "start": hit.start, "end": hit.end, "score": round(hit.score, 6)} for hit in hits
            ]

        return cls(folder, embeddings.identity.adapter_sha256, find, embeddings.unfinished)

    def check(self, facts: ModelFacts) -> None:
        """Refuse to compare features of two models, and texts that a model does not place among its videos.

        Raises:
            RefusedError: 409.
        """
        if facts.search_problem:
            raise RefusedError(409, "no_text_search", facts.search_problem)
        if self.adapter and facts.adapter and self.adapter != facts.adapter:
            raise RefusedError(
                409,
                "other_model",
                "the embeddings are of another version of the model; make them again with predict.py --embeddings",
            )
