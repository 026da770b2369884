"""The card of a model: what it is, what it was trained and scored on, how to use it, and what it is not good for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.config.protocols import PROTOCOLS
from pipelines.records.summary import SELECTIONS, Record, Summary, columns_of, headings, started_from, title, views
from pipelines.reports.page import markdown
from pipelines.storage.files import write_whole

CARD = "model_card.md"
LONGEST = 5000
"""Characters that MLflow's registry keeps of a description."""

_NAMED = 20  # classes and files that are named; of more, the first


def write_model_card(folder: Path) -> Path:
    """Write ``folder/model_card.md`` from the run's record and its adapter."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    path = folder / CARD
    text = model_card(record, _adapter(folder / "adapter.safetensors"))
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path


def description(folder: Path) -> str:
    """The card as the registry keeps it: cut at a line where it is too long, and then saying so."""
    path = folder / CARD
    if not path.is_file():
        return f"run {folder.name}"
    text = path.read_text(encoding="utf-8")
    if len(text) <= LONGEST:
        return text
    end = f"\n\n(cut; whole in {CARD} of run {markdown(folder.name)})\n"
    return text[: LONGEST - len(end)].rpartition("\n")[0] + end


def _adapter(path: Path) -> Mapping[str, Any]:
    """What the adapter's file says of itself; nothing without one."""
    if not path.is_file():
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        found: dict[str, Any] = json.loads((file.metadata() or {}).get("vidadapt", "{}"))
    return found


def model_card(record: Record, adapter: Mapping[str, Any] | None = None) -> str:
    """The card as Markdown.

    Args:
        record: content of ``run.json``.
        adapter: what ``adapter.safetensors`` says of itself.
    """
    sections = {
        "What it is": _what(record, adapter or {}),
        "Use": _use(record, adapter or {}),
        "Scores": _scores(record),
        "Data and protocol": _data(record),
        "Training": _training(record),
        "Cost": _cost(record),
        "Limits": _limits(record),
        "Provenance": _provenance(record),
    }
    lines = [f"# {markdown(record['name'])}", ""]
    for heading, content in sections.items():
        lines += [f"## {heading}", "", *content, ""]
    return "\n".join(lines)


def _list(values: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"- {key}: {markdown(value)}" for key, value in values.items() if value not in ("", None))


def _what(record: Record, adapter: Mapping[str, Any]) -> Iterator[str]:
    backbone, facts = record["config"]["backbone"], record["facts"]
    weights = Path(backbone["pretrained"]).name if backbone["pretrained"] else "random"
    made = f"{record['method']}, preset {record['preset']}" if record["preset"] else record["method"]
    task = "finds videos for captions" if record["protocol"] == "retrieval" else "names the action in a video"
    total = f" of {facts['total']:,}" if "total" in facts else ""
    yield f"An adapter of a frozen vision-language model that {task}."
    yield ""
    yield from _list(
        {
            "Method": made,
            "Backbone": f"{backbone['name']}, weights {weights}, not part of the adapter",
            "Backbone digest": adapter.get("backbone", {}).get("digest"),
            "Weights digest": facts.get("weights_digest"),
            "Trainable parameters": f"{facts['trainable']:,}{total}",
            "Input": f"{views(record)} a video",
        }
    )


def _use(record: Record, adapter: Mapping[str, Any]) -> Iterator[str]:
    tracking = record["config"]["tracking"]
    registered = tracking.get("register")
    source = f"models:/{registered}@{tracking['alias']}" if registered else f"runs/{record['name']}"
    yield from ("```python", "import vlmodels", "", f'model = vlmodels.load("{source}")')
    if record["protocol"] == "retrieval":
        yield 'texts = model.method.encode_captions(["a man plays the guitar"])'
    else:
        yield 'model("clip.mp4", labels=["clapping", "walking a dog"])'
    yield from ("```", "")
    if registered:
        yield "`MLFLOW_TRACKING_URI` says where the registry is."
    else:
        yield "`runs/` stands for the folder that the run was written to."
    if classes := adapter.get("classes"):
        yield f"Without labels it chooses among its {len(classes)} training classes: {_some(classes)}."


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(markdown, names[:_NAMED])) + rest


def _scores(record: Record) -> Iterator[str]:
    summary = Summary([record])
    columns = columns_of([summary])
    yield "| score | value | chance | scored videos |"
    yield "| --- | --- | --- | --- |"
    for column, heading in zip(columns, headings(columns, summary.protocol), strict=True):
        cell = summary.cells[column]
        value = f"{cell.text}" + ("" if column.is_rank else " %")
        chance = "-" if cell.chance is None else f"{cell.chance:.1f} %"
        yield f"| {markdown(heading)} | {value} | {chance} | {cell.counts} |"
    yield ""
    yield "Videos that could not be decoded count as wrong."
    if record["selection"] == "test-best":
        yield "The epoch was chosen on the test list, as published: these scores are optimistic."


def _data(record: Record) -> Iterator[str]:
    facts = record["facts"]
    yield from _list(
        {
            "Protocol": f"{PROTOCOLS[record['protocol']].title} on {title(record['dataset'])}, seed {record['seed']}",
            "Split": facts["split_source"],
            "Split digest": facts.get("split_digest"),
            "Data digest": facts.get("data_digest"),
            "Descriptions digest": facts.get("descriptions_digest"),
        }
    )
    for name, classes in record["classes"].items():
        of = f" of {len(classes)} classes" if classes else ""
        yield f"- Test set {markdown(name)}: {record['metrics'][name]['n_listed']:,} videos{of}"
    yield from (f"- List {markdown(name)}: sha256 {digest}" for name, digest in record["lists"].items())
    yield from (f"- Note: {markdown(note)}" for note in facts.get("notes", ()))


def _training(record: Record) -> Iterator[str]:
    config, start = record["config"], started_from(record)
    if not record["history"]:
        told = f"This run only scores: its adapter is that of {markdown(start)}, trained there."
        yield told if start else "Nothing was trained in this run."
        return
    yield from _list(
        {
            "Epoch kept": f"{record['epoch_kept']} of {len(record['history'])}, {SELECTIONS[record['selection']]}",
            "Started from": start,
        }
    )
    for name, group in (("Method", "method_config"), ("Optimiser", "optim"), ("Augmentation", "augment")):
        if config[group]:
            yield from _list({name: ", ".join(f"{key}={value}" for key, value in config[group].items())})


def _cost(record: Record) -> Iterator[str]:
    cost, shown = record["cost"], {}
    for what, key, form in (
        ("Multiply-accumulates of a view", "gmacs_video", "{:.1f} G"),
        ("Training step", "step_seconds", "{:.3g} s"),
        ("Training", "train_clips_per_second", "{:.3g} clips/s"),
        ("Scoring", "scored_views_per_second", "{:.3g} views/s"),
        ("Peak memory", "peak_memory_mb", "{:,.0f} MB"),
    ):
        if cost.get(key) is not None:
            shown[what] = form.format(cost[key])
    device = record["facts"].get("device")
    yield from _list({**shown, "Duration": f"{record['seconds']['total']:.0f} s", "Device": device})


def _limits(record: Record) -> Iterator[str]:
    lost = {uri: reason for pairs in record["unscored"].values() for uri, reason in pairs}
    if record["protocol"] == "retrieval":
        yield "- Captions longer than the text tower's context are cut."
    else:
        yield (
            "- Other class names than those it was trained on are scored zero-shot, and worse: see the scores on new "
            "classes, if there are any. It always chooses one of the names it is given."
        )
    yield "- Scores are of the test sets above and of no other video; the backbone's biases are the adapter's."
    if lost:
        yield f"- Listed videos that could not be decoded: {len(lost)} ({_some(list(lost))})."


def _provenance(record: Record) -> Iterator[str]:
    facts = record["facts"]
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", "torch", "open_clip", "ray") if name in facts)
    yield from _list(
        {
            "Run": record["name"],
            "MLflow run": record["tracking"].get("run_id"),
            "Finished": record["finished"],
            "Git commit": facts.get("git"),
            "Code digest": facts.get("code_version"),
            "Versions": versions,
            "Machine": facts.get("machine"),
        }
    )
