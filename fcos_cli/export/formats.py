"""The export formats: the suffix of each, and what writes it. No torch.

To add a format, write a function `(onnx_file, out, facts)` in a module of its own and add a row here. Every format is
made from the same ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from fcos_cli.runtime.facts import Facts

Writer = Callable[[Path, Path, Facts], None]


class ExportFormat(NamedTuple):
    """One value of `--format`.

    suffix: of the file to write. writer: `module:function` that makes it from the ONNX file; None for the ONNX file
    itself and for engines. engine: a TensorRT engine, which `export.tensorrt` builds.
    """

    suffix: str
    writer: str | None = None
    engine: bool = False

    def load_writer(self) -> Writer | None:
        """Import and return the writer, or None."""
        if self.writer is None:
            return None
        module, _, function = self.writer.partition(":")
        writer: Writer = getattr(import_module(module), function)
        return writer


FORMATS = {
    "onnx": ExportFormat(".onnx"),
    "openvino": ExportFormat(".xml", writer="fcos_cli.export.openvino:write_openvino"),
    "trt": ExportFormat(".engine", engine=True),
    "trt-rtx": ExportFormat(".engine", engine=True),
}
