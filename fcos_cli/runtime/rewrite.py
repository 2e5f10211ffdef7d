"""Write a copy of a model file with other score thresholds. Everything else stays as it is, byte by byte in the weights
and the graph.

Without torch, onnx, safetensors or openvino: only metadata change, and `headers` knows where those are.
"""

from __future__ import annotations

import json
import mmap
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from fcos_cli.atomic import atomic_write, check_writable
from fcos_cli.errors import ModelError, UsageError
from fcos_cli.runtime.headers import fields, read_header, sidecar_path
from fcos_cli.runtime.promises import KEY, Promise


def check_copy(source: Path, out: Path) -> None:
    """Raise UsageError if `out` cannot be a copy of the model `source`; call it before work that takes time.

    Only `source` and models of fcos are replaced. The second file of a model is replaced only with the first: alone, it
    is somebody else's.
    """
    check_writable(out)
    if out.suffix.lower() != source.suffix.lower():
        raise UsageError(
            f"the copy of a {source.suffix} file must also be a {source.suffix} file",
            where=out,
            remedy=f"use {out.with_suffix(source.suffix)}",
        )
    if not (out.exists() and out.samefile(source)):
        check_is_ours(out)
    check_second_file(out)


def check_is_ours(out: Path) -> None:
    """Raise UsageError if there is a file at `out` that is neither empty nor a model of fcos."""
    if out.is_file() and out.stat().st_size and not _is_model(out):
        what = "this file exists and is not an fcos model, so it is not replaced"
        raise UsageError(what, where=out, remedy="move it away, or choose another name for --out")


def check_second_file(out: Path) -> None:
    """Raise UsageError if the other file of a model at `out` could not be written, or belongs to something else."""
    second = second_file(out)
    if second is None:
        return
    check_writable(second)
    if second.exists() and not _is_model(out):
        what = "this file exists and belongs to no model, so it is not replaced"
        raise UsageError(what, where=second, remedy="move it away, or choose another name for --out")


def second_file(path: Path) -> Path | None:
    """The other file of an OpenVINO model or an engine; None for files that hold everything."""
    return {".xml": path.with_suffix(".bin"), ".engine": sidecar_path(path)}.get(path.suffix.lower())


def _is_model(path: Path) -> bool:
    try:
        read_header(path)
    except ModelError:
        return False
    return True


def write_with_thresholds(
    source: Path,
    out: Path,
    *,
    threshold: float,
    class_thresholds: Sequence[float],
    promises: Sequence[Promise],
) -> None:
    """Write `source` to `out` with these thresholds and promises, and no earlier promises. They may be the same file.

    threshold: for classes that the model does not know. class_thresholds: one per class of the model. Each file is
    written atomically; the second file of an OpenVINO model or an engine is copied first. Raises ModelError if
    `source` cannot be read, UsageError if `out` cannot be written.
    """
    read_header(source)
    changes = {
        "thresholds": json.dumps({"global": threshold, "per_class": list(class_thresholds)}),
        KEY: json.dumps([promise.to_json() for promise in promises]),
    }
    suffix = source.suffix.lower()
    if suffix == ".safetensors":
        with source.open("rb") as file, atomic_write(out, binary=True) as stream:
            _copy_safetensors(file, stream, changes)
    elif suffix == ".onnx":
        with source.open("rb") as file, atomic_write(out, binary=True) as stream:
            _copy_onnx(file, stream, changes)
    elif suffix == ".xml":
        _copy(source.with_suffix(".bin"), out.with_suffix(".bin"))
        _copy_openvino(source, out, changes)
    else:
        _copy(source, out)
        _copy_sidecar(sidecar_path(source), sidecar_path(out), changes)


def _copy(source: Path, out: Path) -> None:
    if out.exists() and out.samefile(source):
        return
    with source.open("rb") as file, atomic_write(out, binary=True) as stream:
        shutil.copyfileobj(file, stream)


def _copy_safetensors(file: IO[bytes], stream: IO[bytes], changes: Mapping[str, str]) -> None:
    """Replace the JSON at the start. The offsets of the tensors count from its end, so they stay valid."""
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header["__metadata__"] = {**header.get("__metadata__", {}), **changes}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight
    stream.write(len(text).to_bytes(8, "little") + text)
    shutil.copyfileobj(file, stream)


def _copy_onnx(file: IO[bytes], stream: IO[bytes], changes: Mapping[str, str]) -> None:
    """Copy the fields of the ModelProto without the `metadata_props` to replace, and append those.

    The order of the fields of a protobuf message has no meaning; for the numbers see `headers`.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = 0
        for number, begin, end in fields(data, 0, len(data)):
            key = (
                next((data[b:e] for part, b, e in fields(data, begin, end) if part == 1), b"") if number == 14 else b""
            )
            if key.decode("utf-8") not in changes:
                stream.write(data[start:end])
            start = end
    for name, value in changes.items():
        entry = _field(1, name.encode()) + _field(2, value.encode())
        stream.write(_field(14, entry))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _copy_openvino(source: Path, out: Path, changes: Mapping[str, str]) -> None:
    """Set <fcos><key value="…"/></fcos> in the `rt_info` of the intermediate representation."""
    from xml.etree import ElementTree

    tree = ElementTree.parse(source)
    entries = tree.getroot().find("rt_info/fcos")
    assert entries is not None, "read_header found the facts there"
    for name, value in changes.items():
        entry = entries.find(name)
        if entry is None:
            entry = ElementTree.SubElement(entries, name)
        entry.set("value", value)
    with atomic_write(out, binary=True) as stream:
        tree.write(stream, encoding="utf-8", xml_declaration=True)


def _copy_sidecar(source: Path, out: Path, changes: Mapping[str, str]) -> None:
    content = json.loads(source.read_text(encoding="utf-8"))
    content["facts"] = {**content["facts"], **changes}
    with atomic_write(out) as stream:
        json.dump(content, stream, indent=2)
        stream.write("\n")
