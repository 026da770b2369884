"""Export a trained model as a folder that is written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pipelines.exporting import check, merge, onnx_file, program, record
from pipelines.records.run_file import RECORD, read
from pipelines.storage.files import file_sha256
from vlmodels.checkpoint import ADAPTER
from vlmodels.errors import UserError
from vlmodels.paths import is_there
from vlmodels.predictor import Predictor
from vlmodels.run_folder import run_of

Format = Literal["both", "onnx", "torch", "classes"]
Say = Callable[[str], object]

EXPORT, CLASSES, ONNX, TORCH, MERGED = "export.json", "classes.npz", "video.onnx", "video.pt2", "merged.safetensors"
_EXAMPLE = Path(__file__).with_name("example.py")


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export: a model by its name and its run's folder, where to, and in which formats."""

    model: str
    folder: Path
    out: Path
    format: Format = "both"
    labels: tuple[str, ...] | None = None
    weights: str | None = None
    merged: bool = False

    @property
    def onnx(self) -> bool:
        """Whether ONNX is written."""
        return self.format in ("both", "onnx")

    @property
    def torch(self) -> bool:
        """Whether ``torch.export``'s file is written."""
        return self.format in ("both", "torch")


def export(request: ExportRequest, say: Say = print) -> Path:
    """Write the folder, whose files were compared with PyTorch; return it.

    Raises:
        UserError: there is no such model, the folder holds other things, a package is missing, the method cannot be
            merged as asked, or an exported graph differs from PyTorch.
    """
    if request.onnx:
        onnx_file.require_onnx()
    out = request.out.absolute()
    with new_folder(out) as part:
        predictor = Predictor.from_run(request.folder, weights=request.weights)
        if request.merged:
            merge.refuse_merged(predictor.method)
        if request.labels is not None or predictor.classes:
            predictor.set_labels(request.labels)
        about = {"schema": record.SCHEMA, "kind": record.KIND, "model": request.model}
        about |= _run_facts(request.folder) | record.identity(predictor.method)
        about |= _write_files(part, request, predictor, about, say)
        about["versions"] = record.versions()
        about["files"] = {path.name: _file_facts(path) for path in sorted(part.iterdir())}
        text = json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False)
        (part / EXPORT).write_text(text + "\n", encoding="utf-8")
    return out


def _write_files(
    part: Path, request: ExportRequest, predictor: Predictor, about: dict[str, Any], say: Say
) -> dict[str, Any]:
    """Write all files but export.json, and return what it says of them."""
    method = predictor.method.requires_grad_(False)
    plain = merge.merged_method(method)
    exported = program.VideoProgram(plain or method, program.scoring_of(method)).eval()
    if method.classes:
        _write_classes(part / CLASSES, predictor)
        say(f"classes    {len(method.classes)} -> {CLASSES}")
    if request.format == "classes":
        if not method.classes:
            raise UserError(f"{request.model} has no classes; name some with --labels")
        if exported.scoring == "classifier":
            raise UserError(
                f"{method.name}'s classifier is part of the graph, so other classes need another graph: export again "
                "with --format both"
            )
        return record.contract(exported, predictor)
    merged = plain is not None and plain is not method
    if merged:
        say(f"merged     {method.name} into the weights: the graph is the bare backbone's")
    found = record.contract(exported, predictor) | {"merged_into_weights": merged}
    found["check"] = _write_graphs(part, request, exported, check.make_cases(method, exported), say)
    if request.merged:
        facts = {"vidadapt_merged": json.dumps({"method": method.name, "adapter_sha256": about["adapter_sha256"]})}
        merge.write_merged(part / MERGED, method, facts)
        say(f"weights    {MERGED}: {method.backbone.spec.name} by open_clip's names")
    if request.onnx:
        shutil.copyfile(_EXAMPLE, part / _EXAMPLE.name)
    return found


def _write_graphs(
    part: Path, request: ExportRequest, exported: program.VideoProgram, cases: list[check.Case], say: Say
) -> dict[str, Any]:
    """Write the graph in the asked formats, compare each with PyTorch, and return the differences."""
    began = time.monotonic()
    captured = program.capture(exported)
    say(f"captured   {len(captured.graph.nodes)} nodes in {time.monotonic() - began:.0f} s")
    found: dict[str, Any] = {"tolerance": check.TOLERANCE, "views": list(check.VIEWS)}
    if request.torch:
        torch.export.save(captured, part / TORCH)
        module = torch.export.load(part / TORCH).module()
        errors = check.compare(cases, lambda inputs: _with_torch(module, inputs))
        found["torch"] = _report(errors, part / TORCH, say)
    if request.onnx:
        onnx_file.write_onnx(captured, part / ONNX, program.input_names(exported), program.output_names(exported))
        errors = check.compare(cases, onnx_file.OnnxModel(part / ONNX))
        found["onnx"] = _report(errors, part / ONNX, say) | {"opset": onnx_file.OPSET}
    return found


@torch.no_grad()
def _with_torch(module: torch.nn.Module, inputs: Any) -> list[Any]:
    return [output.numpy() for output in module(*(torch.from_numpy(values) for values in inputs))]


def _report(errors: check.Errors, path: Path, say: Say) -> dict[str, float]:
    check.refuse_differences(errors, path.name)
    size = sum(other.stat().st_size for other in path.parent.glob(f"{path.name}*"))
    say(f"checked    {path.name} ({size / 1e6:.1f} MB): at most {errors.largest:.1e} from PyTorch")
    return dataclasses.asdict(errors)


def _write_classes(path: Path, predictor: Predictor) -> None:
    """Write names, features (C,E) and the logit scale of the set classes; numpy reads them without pickle."""
    method = predictor.method
    with path.open("wb") as file:
        np.savez(
            file,
            names=np.array(method.classes, dtype=np.str_),
            features=program.class_features(method).numpy(),
            logit_scale=np.float32(method.backbone.logit_scale.item()),
        )


def _run_facts(folder: Path) -> dict[str, Any]:
    run = run_of(folder)
    about = run / RECORD
    return {"run": read(about).name if about.is_file() else None, "adapter_sha256": file_sha256(run / ADAPTER)}


def _file_facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to fill, and rename it to ``out`` at the end; after an error, nothing of it is left.

    Raises:
        UserError: ``out`` is a file, holds other things than an earlier export, or cannot be written.
    """
    out = out.resolve()
    part, old = (out.with_name(f".{out.name}.{os.getpid()}.{kind}") for kind in ("part", "old"))
    try:
        _refuse_foreign(out)
        part.mkdir(parents=True)
        yield part
        if out.is_dir():
            out.rename(old)
        part.rename(out)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror or error}") from error
    finally:
        if old.is_dir() and not out.exists():
            old.rename(out)
        for rest in (part, old):
            shutil.rmtree(rest, ignore_errors=True)


def _refuse_foreign(out: Path) -> None:
    """Raise UserError unless ``out`` is not there, empty, or an export and nothing more."""
    if not is_there(out):
        return
    if not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    names = {path.name for path in out.iterdir()}
    if not names:
        return
    try:
        earlier = json.loads((out / EXPORT).read_text(encoding="utf-8"))
        ours = {EXPORT, *earlier["files"]} if earlier["kind"] == record.KIND else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours = set()
    if foreign := sorted(names - ours):
        raise UserError(
            f"--out {out} holds {', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}, which no export wrote; "
            "name a new folder"
        )
