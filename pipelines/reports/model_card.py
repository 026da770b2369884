"""The card of a model: what it is, how to use it, its data, scores and limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.config.protocols import PROTOCOLS
from pipelines.records.run_file import RECORD, SELECTIONS, RunRecord, read
from pipelines.records.summary import (
    Summary,
    class_names_text,
    columns_of,
    headings,
    started_from,
    statistics_text,
    title,
    views_text,
)
from pipelines.reports.page import markdown
from pipelines.storage.files import write_whole

CARD = "model_card.md"
LONGEST = 5000
"""Most characters of a description in MLflow's registry."""

_NAMED = 20  # classes and files that are listed at most


def write_model_card(folder: Path) -> Path:
    """Write ``folder/model_card.md`` from the run's record and its adapter.

    Raises:
        UserError: the record is missing, or one of them damaged.
    """
    record = read(folder / RECORD)
    path = folder / CARD
    text = model_card(record, _adapter(folder))
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path


def shortened_card(text: str, name: str) -> str:
    """Return the card of the run ``name`` for the registry; one that is too long is cut at a line, with a note."""
    if len(text) <= LONGEST:
        return text
    end = f"\n\n(cut; whole in {CARD} of run {markdown(name)})\n"
    return text[: LONGEST - len(end)].rpartition("\n")[0] + end


def _adapter(folder: Path) -> Mapping[str, Any]:
    """Return the metadata of the adapter in a run's folder; {} without one.

    Raises:
        UserError: the adapter is damaged.
    """
    from vlmodels.checkpoint import ADAPTER, about_adapter

    path = folder / ADAPTER
    return dataclasses.asdict(about_adapter(path.read_bytes(), str(path))) if path.is_file() else {}


def model_card(record: RunRecord, adapter: Mapping[str, Any] | None = None, *, source: str = "") -> str:
    """Return the card as Markdown.

    Args:
        record: record of the run.
        adapter: metadata of ``adapter.safetensors``.
        source: what the model is loaded by; by default the name that it was to be registered under, else the run.
    """
    sections = {
        "What it is": _what(record, adapter or {}),
        "Use": _use(record, adapter or {}, source),
        "Scores": _scores(record),
        **({"None of these": _decision(record)} if record.decision is not None else {}),
        "Data and protocol": _data(record),
        "Training": _training(record),
        "Cost": _cost(record),
        "Limits": _limits(record),
        "Provenance": _provenance(record),
    }
    lines = [f"# {markdown(record.name)}", ""]
    for heading, content in sections.items():
        lines += [f"## {heading}", "", *content, ""]
    return "\n".join(lines)


def _list(values: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"- {key}: {markdown(value)}" for key, value in values.items() if value not in ("", None))


def _what(record: RunRecord, adapter: Mapping[str, Any]) -> Iterator[str]:
    backbone, facts = record.config.backbone, record.facts
    weights = Path(backbone.pretrained).name if backbone.pretrained else "random"
    method = f"{record.method}, preset {record.preset}" if record.preset else record.method
    task = "finds videos for captions" if record.protocol == "retrieval" else "names the action in a video"
    total = "" if facts.total is None else f" of {facts.total:,}"
    yield f"An adapter of a frozen vision-language model that {task}."
    yield ""
    yield from _list(
        {
            "Method": method,
            "Backbone": f"{backbone.name}, weights {weights}, not part of the adapter",
            "Backbone digest": adapter.get("backbone", {}).get("digest"),
            "Weights digest": facts.weights_digest,
            "Trainable parameters": f"{facts.trainable:,}{total}",
            "Input": f"{views_text(record)} a video",
            "Frames normalised by": statistics_text(record),
        }
    )


def _use(record: RunRecord, adapter: Mapping[str, Any], source: str) -> Iterator[str]:
    tracking = record.config.tracking
    if not source and tracking.registered_name:
        source = f"models:/{tracking.registered_name}@{tracking.alias}"
    registered = source.startswith("models:/")
    source = source or f"runs/{record.name}"
    yield from ("```python", "import vlmodels", "", f'model = vlmodels.load("{source}")')
    if record.protocol == "retrieval":
        yield 'texts = model.method.encode_captions(["a man plays the guitar"])'
    else:
        yield 'model("clip.mp4", labels=["clapping", "walking a dog"])'
    yield from ("```", "")
    if registered:
        yield "`MLFLOW_TRACKING_URI` says where the registry is. To MLflow it is a pyfunc, which takes paths, addresses"
        yield "and base64, and answers each video:"
        yield from ("", "```python", "import mlflow", "", f'model = mlflow.pyfunc.load_model("{source}")')
        asked = ', "labels": ["clapping", "walking a dog"]' if record.protocol == "retrieval" else ""
        yield f'model.predict(["clip.mp4"], params={{"topk": 3{asked}}})'
        yield "```"
        if file := adapter.get("backbone", {}).get("file"):
            name = markdown(Path(record.config.backbone.pretrained or "").name)
            yield ""
            yield f"It needs the weight file {name} (SHA-256 {file['sha256']}): `VIDADAPT_WEIGHTS` says where it is,"
            yield "unless it is the file that the model was trained with, or came with the model."
        yield ""
    else:
        yield "`runs/` stands for the folder that the run was written to."
    if classes := adapter.get("classes"):
        yield f"Without labels it chooses among its {len(classes)} training classes: {_some(classes)}."


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(markdown, names[:_NAMED])) + rest


def _scores(record: RunRecord) -> Iterator[str]:
    summary = Summary([record])
    columns = columns_of([summary])
    yield "| score | value | chance | scored videos |"
    yield "| --- | --- | --- | --- |"
    for column, heading in zip(columns, headings(columns, summary.protocol), strict=True):
        cell = summary.cells[column]
        value = cell.text if column.is_rank else f"{cell.text} %"
        chance = "-" if cell.chance is None else f"{cell.chance:.1f} %"
        yield f"| {markdown(heading)} | {value} | {chance} | {cell.counts} |"
    yield ""
    yield "Videos that could not be decoded count as wrong."
    if record.selection == "test-best":
        yield "The epoch was chosen on the test list, as published: these scores are optimistic."


def _decision(record: RunRecord) -> Iterator[str]:
    """Yield what a run chose on held-out clips."""
    from pipelines.reports.decision_text import HEAD, LEGEND, lines, rows

    if record.decision is None:
        return
    for line in lines(record):
        yield from (markdown(line), "")
    if record.decision.threshold is not None:
        yield from ('`model.ask("clip.mp4").none_of_these` says whether it is so.', "")
    yield f"| {' | '.join(HEAD)} |"
    yield f"|{' --- |' * len(HEAD)}"
    for name, cells in rows(record.decision):
        texts = [f"{cell.text} ({cell.small})" if cell.small else cell.text for cell in cells]
        yield f"| {' | '.join(map(markdown, (name, *texts)))} |"
    yield from ("", LEGEND)


def _data(record: RunRecord) -> Iterator[str]:
    facts = record.facts
    yield from _list(
        {
            "Protocol": f"{PROTOCOLS[record.protocol].title} on {title(record.dataset)}, seed {record.seed}",
            "Class names": class_names_text(record),
            "Split": facts.split_source,
            "Split digest": facts.split_digest,
            "Data digest": facts.data_digest,
            "Descriptions digest": facts.descriptions_digest,
        }
    )
    for name, classes in record.classes.items():
        of_classes = f" of {len(classes)} classes" if classes else ""
        yield f"- Test set {markdown(name)}: {record.metrics.tests[name].n_listed:,} videos{of_classes}"
    yield from (f"- List {markdown(name)}: sha256 {digest}" for name, digest in record.lists.items())
    yield from (f"- Note: {markdown(note)}" for note in facts.notes)


def _training(record: RunRecord) -> Iterator[str]:
    config, start = record.config, started_from(record)
    if not record.history:
        only_scores = f"This run only scores: its adapter is that of {markdown(start)}, trained there."
        yield only_scores if start else "Nothing was trained in this run."
        return
    yield from _list(
        {
            "Epoch kept": f"{record.epoch_kept} of {len(record.history)}, {SELECTIONS[record.selection]}",
            "Started from": start,
        }
    )
    groups = {"Method": config.method_config, "Optimiser": config.optim, "Augmentation": config.augment}
    for name, settings in groups.items():
        if settings:
            yield from _list({name: ", ".join(f"{key}={value}" for key, value in settings.items())})


def _cost(record: RunRecord) -> Iterator[str]:
    cost = record.cost
    measured = {
        "Multiply-accumulates of a view": (cost.gmacs_video, "{:.1f} G"),
        "Training step": (cost.step_seconds, "{:.3g} s"),
        "Training": (cost.train_clips_per_second, "{:.3g} clips/s"),
        "Scoring": (cost.scored_views_per_second, "{:.3g} views/s"),
        "Peak memory": (cost.peak_memory_mb, "{:,.0f} MB"),
    }
    yield from _list({name: form.format(value) for name, (value, form) in measured.items() if value is not None})
    yield from _list({"Duration": f"{record.seconds.total:.0f} s", "Device": record.facts.device})


def _limits(record: RunRecord) -> Iterator[str]:
    lost = {uri: reason for pairs in record.unscored.values() for uri, reason in pairs}
    if record.protocol == "retrieval":
        yield "- Captions longer than the text tower's context are cut."
    else:
        yield (
            "- Other class names than those it was trained on are scored zero-shot, and worse: see the scores on new "
            f"classes, if there are any. {_chooses(record)}"
        )
    yield "- Scores are of the test sets above and of no other video; the backbone's biases are the adapter's."
    if lost:
        yield f"- Listed videos that could not be decoded: {len(lost)} ({_some(list(lost))})."


def _chooses(record: RunRecord) -> str:
    if record.decision is None or record.decision.threshold is None:
        return "It always chooses one of the names it is given."
    return "Among other names it always chooses one; among its own it may answer “none of these”."


def _provenance(record: RunRecord) -> Iterator[str]:
    facts = record.facts
    versions = {"python": facts.python, "torch": facts.torch, "open_clip": facts.open_clip, "ray": facts.ray}
    yield from _list(
        {
            "Run": record.name,
            "MLflow run": record.tracking.run_id,
            "Finished": record.finished,
            "Git commit": facts.git,
            "Code digest": facts.code_version,
            "Versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
            "Machine": facts.machine,
        }
    )
