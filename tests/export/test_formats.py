"""The table of export formats."""

from __future__ import annotations

import pytest

from fcos_cli.export.formats import FORMATS
from fcos_cli.runtime.open import BACKENDS


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_be_written_and_run(name: str) -> None:
    target = FORMATS[name]
    assert target.suffix in BACKENDS
    writer = target.load_writer()
    assert (writer is None) == (name == "onnx" or target.engine is not None)
    assert writer is None or callable(writer)
