"""OpenVINO files: two that belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_onnx import FACTS, write_onnx

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")


def test_an_old_graph_is_never_left_with_new_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fcos_cli.export.openvino import write_openvino

    source, xml = write_onnx(tmp_path / "m.onnx"), tmp_path / "m.xml"
    write_openvino(source, xml, FACTS)
    replace = Path.replace

    def stop(path: Path, target: Path) -> Path:
        if target == xml:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_openvino(source, xml, FACTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.onnx"]
