"""The export formats: their suffixes and writers. No torch.

To add a format, write a function `(onnx_file, out, facts)` in its own module and add a row here. Every format is
converted from the same ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.tensorrt.package import Flavour

Writer = Callable[[Path, Path, Facts], None]


class ExportFormat(NamedTuple):
    """One value of `--format`.

    suffix: suffix of the output file. writer: `module:function` that converts the ONNX file; None for ONNX itself and
    for engines. engine: which TensorRT builds this engine (`export.tensorrt`); None for other formats.
    """

    suffix: str
    writer: str | None = None
    engine: Flavour | None = None

    def load_writer(self) -> Writer | None:
        """Import and return the writer, or None if the format has none."""
        if self.writer is None:
            return None
        module, _, function = self.writer.partition(":")
        writer: Writer = getattr(import_module(module), function)
        return writer


FORMATS = {
    "onnx": ExportFormat(".onnx"),
    "openvino": ExportFormat(".xml", writer="fcos_cli.export.openvino:write_openvino"),
    "trt": ExportFormat(".engine", engine="trt"),
    "trt-rtx": ExportFormat(".engine", engine="trt-rtx"),
}

REPOSITORY = "triton"
"""Another value of `--format`: a folder around an ONNX file or an engine, which `export.triton` writes."""
