"""Write a captured graph as ONNX, and run it with ONNX Runtime."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from typing import TYPE_CHECKING, Any

from vlmodels.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch.export import ExportedProgram

OPSET = 20
"""The first with Gelu as one operator; ONNX Runtime reads it since 1.17 (January 2024)."""
LARGEST = 1_900_000_000
"""Bytes of weights in the file itself: a protobuf ends at 2 GB. More go to a file beside it."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Raise UserError unless what writes, reads and runs ONNX is installed."""
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"--format onnx and both need {', '.join(missing)}: pip install -e '.[export]' in this package's folder; "
            "--format torch works without"
        )


def write_onnx(
    captured: ExportedProgram, path: Path, inputs: Sequence[str], outputs: Sequence[str], *, largest: int = LARGEST
) -> list[Path]:
    """Write a graph as ONNX; return the files: ``path``, and ``path.data`` if the weights are larger than ``largest``.

    Args:
        captured: the graph (``program.capture``), whose inputs are dynamic in their first dimension.
        path: the file.
        inputs: names of the inputs.
        outputs: names of the outputs.
        largest: bytes of weights from which they are written beside.

    Raises:
        UserError: the graph holds numbers of 64 bits, which few runtimes compute.
    """
    import onnx_ir as ir
    import torch

    with _quiet():
        program: Any = torch.onnx.export(
            captured,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    model = program.model
    _name_dimensions(model)
    _forget_sources(model)
    computed = [(node.op_type, value.dtype) for node in model.graph for value in node.outputs]
    if wide := sorted({kind for kind, dtype in computed if dtype == ir.DataType.DOUBLE}):
        raise UserError(f"the graph computes in float64 ({', '.join(wide)}); report this, or use --format torch")
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    if size <= largest:
        ir.save(model, path)
        return [path]
    ir.save(model, path, external_data=f"{path.name}.data")
    return [path, path.with_name(f"{path.name}.data")]


class OnnxModel:
    """An ONNX file in ONNX Runtime, on the CPU."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs for the inputs, in the order of the graph."""
        names = [value.name for value in self.session.get_inputs()]
        found: list[NDArray[Any]] = self.session.run(None, dict(zip(names, inputs, strict=True)))
        return found


def _name_dimensions(model: Any) -> None:
    """Give the dynamic dimensions the names of what they count, in place of torch's symbols."""
    import onnx_ir as ir

    named = dict(zip(("frames", "class_features"), ("views", "classes"), strict=True))
    symbols = {value.shape[0].value: named[value.name] for value in model.graph.inputs}
    for value in [*model.graph.inputs, *model.graph.outputs]:
        shape = [symbols.get(size.value, size.value) if hasattr(size, "value") else size for size in value.shape]
        value.shape = ir.Shape(shape)


def _forget_sources(model: Any) -> None:
    """Remove what the exporter notes of this machine: stack traces, and names of Python modules."""
    model.metadata_props.clear()
    for graph in [model.graph, *model.functions.values()]:
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own passes from the terminal; its errors are raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
