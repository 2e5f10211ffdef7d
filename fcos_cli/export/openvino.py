"""ONNX → OpenVINO: an .xml and a .bin file with the same facts. Needs the extra `openvino`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.openvino import make_core

KEY = "fcos"
"""Section of the model's `rt_info` that contains `Facts.to_metadata()`."""


def write_openvino(onnx: Path, xml: Path, facts: Facts) -> None:
    """Convert an ONNX file to `xml` and its weights (`.bin`) beside it, each written atomically. The old `xml` is
    deleted first: it must not be found with new weights.

    With precision fp16 the weights are stored in half; the precision of the computation is chosen at run time. The
    model is read with OpenVINO's runtime, because its separate converter sends telemetry.
    """
    model = make_core().read_model(onnx)
    import openvino

    for name, value in facts.to_metadata().items():
        model.set_rt_info(value, [KEY, name])
    xml.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=xml.parent, prefix=".fcos-") as folder:
        written = Path(folder) / xml.name
        openvino.save_model(model, written, compress_to_fp16=facts.precision == "fp16")
        xml.unlink(missing_ok=True)
        written.with_suffix(".bin").replace(xml.with_suffix(".bin"))
        written.replace(xml)
