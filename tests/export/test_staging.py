"""Files of an export replace earlier ones only when they are complete, and a model is never half old, half new."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcos_cli.errors import ModelError
from fcos_cli.export.staging import staged

FILES = {
    "m.onnx": ("m.onnx", "m.parity.json", "m.parity.png"),
    "m.xml": ("m.xml", "m.bin", "m.xml.parity.json", "m.xml.parity.png"),
    "m.engine": ("m.engine", "m.engine.json", "m.engine.parity.json"),
}


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("name", FILES)
def test_all_files_are_replaced_at_the_end(tmp_path: Path, name: str) -> None:
    out = tmp_path / "new folder" / name
    with staged(out) as new:
        for file in FILES[name]:
            new.with_name(file).write_text("old")
    with staged(out) as new:
        new.write_text("new")
        for file in FILES[name][1:2]:
            new.with_name(file).write_text("new")
        assert set(texts(new.parent).values()) == {"new"}
        assert out.read_text() == "old"
    assert texts(out.parent) == dict.fromkeys(FILES[name][:2], "new")  # an earlier drawing is no longer true


@pytest.mark.parametrize("name", FILES)
def test_nothing_changes_if_the_block_fails(tmp_path: Path, name: str) -> None:
    for file in FILES[name]:
        (tmp_path / file).write_text("old")

    def fail() -> None:
        with staged(tmp_path / name) as new:
            new.write_text("new")
            raise ModelError("it does not run", where=new)

    with pytest.raises(ModelError) as caught:
        fail()
    assert texts(tmp_path) == dict.fromkeys(FILES[name], "old")
    assert caught.value.where == str(tmp_path / name)


@pytest.mark.parametrize("name", ["m.xml", "m.engine"])
def test_a_model_that_is_replaced_in_part_is_not_found(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / name
    out.write_text("old")
    replace = Path.replace

    def stop(path: Path, target: Path) -> Path:
        if target == out:
            raise KeyboardInterrupt
        return replace(path, target)

    def write() -> None:
        with staged(out) as new:
            for file in FILES[name][:2]:
                new.with_name(file).write_text("new")

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert not out.exists()
