"""Predict many videos: what is done is kept, the rest runs on Ray Data, and the results are written in the end.

Nothing here grows with the number of videos but the listing: rows go to the journal as they come, and from there to
the results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.prediction.decode import DecodeRequest, FatalError, decode_batch
from pipelines.prediction.journal import opened
from pipelines.prediction.model import OpenModel, choose_device, open_model
from pipelines.prediction.on_ray import run_on_ray
from pipelines.prediction.progress import Progress, Summary, summarise
from pipelines.prediction.results import Results, Targets
from pipelines.prediction.rows import Row
from pipelines.prediction.scoring import Scored, score_looks
from pipelines.prediction.videos import HANDFUL, Listing
from pipelines.prediction.window_scores import windows_run
from pipelines.prediction.work import BatchRequest, Run, Say, Work
from vlmodels.errors import UserError


def predict_many(
    listing: Listing,
    request: BatchRequest,
    targets: Targets | None,
    say: Say,
    show: Callable[[Row], None] | None = None,
    *,
    run: Run | None = None,
    open_model: Callable[..., OpenModel] = open_model,
) -> Summary:
    """Predict the videos of a listing, those that are done already excepted, and write the results.

    Args:
        listing: the videos.
        request: what is to be done with them.
        targets: where results and features go; None: they are shown alone.
        say: prints a line of progress.
        show: prints a row as soon as it is there.
        open_model: loads the model.
        run: how videos are scored; by default on Ray if there are more than a handful.

    Raises:
        UserError: there is no such model, the results cannot be written, or belong to other settings.
    """
    began = time.monotonic()
    if targets is None:
        with TemporaryDirectory(prefix="vidadapt-predict-") as folder:
            return predict_many(
                listing, request, Targets(None, work=Path(folder)), say, show, run=run, open_model=open_model
            )
    targets.check()
    model = open_model(request.model, weights=request.weights, labels=request.labels)
    about = _about(model, request, targets)
    has_classes = model.files.labels is not None or model.facts.classes > 0
    if not has_classes and not targets.embeddings:
        raise UserError("this model has no classes of its own; name some (--labels), or make --embeddings")
    score = replace(request.score, classes=has_classes, features=targets.embeddings is not None)
    request = replace(request, score=score)
    decode = DecodeRequest(model.predictor.view_reader, str(listing.folder), request.time_limit_s)
    if request.decode:
        decode = replace(decode, decode=request.decode)
    facts, files = model.facts, model.files
    del model  # the processes that score have their own
    with opened(targets.journal, listing, about, overwrite=targets.overwrite, out=targets.name) as journal:
        results = Results(targets, journal, facts, show)
        kept = results.take_over()
        if kept:
            say(f"{kept} of {len(listing)} videos are done already, and kept")
        results.add_known_failures()
        pending = journal.pending()
        if pending:
            work = Work(listing, pending, request, decode, files)
            _score_all(work, results, say, run or _run_of(request, len(pending)))
        results.write(topk=min(request.score.topk, len(files.labels or ()) or facts.classes or 1))
        unit = "videos" if request.windows is None else "windows"
        return summarise(journal.rows(), targets.shown, time.monotonic() - began, results.progress, unit)


def _run_of(request: BatchRequest, pending: int) -> Run:
    if request.windows is not None:
        return windows_run(*request.windows)
    return run_on_ray if pending > HANDFUL else run_here


def _score_all(work: Work, results: Results, say: Say, run: Run) -> None:
    """Score the pending videos; keep those that are done when this ends, however it does."""
    progress = results.progress = Progress(len(work.pending), say)
    try:
        with closing(run(work, say)) as batches:  # type: ignore[type-var]  # generators, all of them
            for scored in batches:
                results.add(scored)
                progress.add(scored)
    except FatalError as error:
        raise UserError(str(error)) from error
    except KeyboardInterrupt:
        results.flush()
        say(f"stopped: {len(results.journal)} of {len(work.listing)} videos are done; the same command continues")
        raise
    finally:
        results.flush()


def _about(model: OpenModel, request: BatchRequest, targets: Targets) -> dict[str, Any]:
    """Return what results are made of: with another of these they would be others."""
    facts = model.facts
    return {
        "adapter_sha256": facts.adapter_sha256,
        "weights_digest": facts.weights_digest,
        "labels": model.files.labels,
        "topk": request.score.topk,
        "threshold": request.score.threshold,
        "decision": facts.decision,
        "views": facts.views,
        "windows": request.windows,
        "embeddings": str(targets.embeddings.resolve()) if targets.embeddings else None,
    }


def run_here(work: Work, _: Say) -> Iterator[list[Scored]]:
    """Score videos in this process, one at a time; a child decodes them.

    Raises:
        UserError: the model cannot be loaded here, or there is no such device.
        FatalError: nothing can be decoded on this machine.
    """
    predictor = work.files.load(choose_device(work.request.device))
    videos = [work.listing[index] for index in work.pending]
    with closing(decode_batch(videos, work.decode)) as looks:  # type: ignore[type-var]  # a generator
        for look in looks:
            yield score_looks(predictor, [look], work.score)
