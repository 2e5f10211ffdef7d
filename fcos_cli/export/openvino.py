"""ONNX → OpenVINO: an .xml and a .bin that carry the same facts. Extra `openvino`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fcos_cli.errors import MissingExtra
from fcos_cli.runtime.facts import Facts

KEY = "fcos"
"""Section of the model's `rt_info` that holds `Facts.to_metadata()`."""


def write_openvino(onnx: Path, xml: Path, facts: Facts) -> None:
    """Read an ONNX file and write `xml` and the weights beside it (`.bin`), each appearing only when it is whole.

    Of precision fp16 the weights are stored in half; what the network computes in is chosen where it runs. The model is
    read by OpenVINO's own runtime: its separate converter reports home.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("OpenVINO is not installed", extra="openvino") from error
    model = openvino.Core().read_model(onnx)
    for name, value in facts.to_metadata().items():
        model.set_rt_info(value, [KEY, name])
    xml.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=xml.parent, prefix=".fcos-") as folder:
        written = Path(folder) / xml.name
        openvino.save_model(model, written, compress_to_fp16=facts.precision == "fp16")
        written.with_suffix(".bin").replace(xml.with_suffix(".bin"))
        written.replace(xml)
