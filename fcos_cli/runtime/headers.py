"""What a model file says of itself, read off the file: no torch, no onnx, none of the libraries that run it.

Hence `fcos info` is instant for a file of any kind and size, and a file that is cut off, too new or not ours is told
in our words before a library is loaded that would tell it in its own.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from fcos_cli.errors import ModelError
from fcos_cli.runtime.facts import Facts


class Header(NamedTuple):
    """facts: as in every artifact. parameters: number of weights, None where only the graph knows. engine: what the
    builder of a TensorRT engine noted. bytes: of all the files that are the model."""

    facts: Facts
    bytes: int
    parameters: int | None = None
    engine: dict[str, Any] | None = None


def read_header(path: Path) -> Header:
    """The header of a `.safetensors`, `.onnx`, `.xml` or `.engine` file.

    Raises ModelError naming the file: of an unknown kind, cut off, damaged, without its companion, not ours, too new.
    """
    readers = {".safetensors": _safetensors, ".onnx": _onnx, ".xml": _openvino, ".engine": _sidecar}
    reader = readers.get(path.suffix.lower(), _sidecar if _sidecar_path(path).is_file() else None)
    if reader is None:
        raise ModelError(
            f"{path.suffix or 'a file without a suffix'} is no kind of model that can be run",
            where=path,
            remedy=f"use a run folder or one of {', '.join(readers)}",
        )
    try:
        return reader(path)
    except OSError as error:
        raise ModelError(f"the model cannot be read ({error.strerror or error})", where=path) from error


def _damaged(path: Path, why: object) -> ModelError:
    return ModelError(
        f"this is not a readable {path.suffix} file ({why})",
        where=path,
        remedy="the file may be cut off or of another kind; copy it again",
    )


def _safetensors(path: Path) -> Header:
    """Weights keep what post-processing drops in their ModelConfig; they are the reference that others verify with."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
            parameters = sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise _damaged(path, error) from error
    try:
        config = json.loads(metadata.get("model", "{}"))
        names = {"score": "score_threshold", "nms_iou": "nms_iou", "max_detections": "max_detections"}
        limits = {key: config.get(name, getattr(Facts, name)) for key, name in names.items()}
    except (ValueError, AttributeError) as error:
        raise ModelError(f"the file's facts cannot be used: {error}", where=path) from error
    metadata |= {"limits": json.dumps(limits), "precision": '"fp32"', "verified": "null"}
    return Header(Facts.from_metadata(metadata, where=path), path.stat().st_size, parameters)


def _openvino(path: Path) -> Header:
    """`rt_info` → `fcos` of the intermediate representation: <fcos><key value="…"/> … </fcos>."""
    from xml.etree import ElementTree

    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(
            "the weights of this model are missing: an OpenVINO model is two files",
            where=weights,
            remedy=f"put {weights.name} beside {path.name}",
        )
    try:
        entries = ElementTree.parse(path).getroot().find("rt_info/fcos")
    except ElementTree.ParseError as error:
        raise _damaged(path, error) from error
    metadata = {} if entries is None else {entry.tag: entry.get("value", "") for entry in entries}
    return Header(Facts.from_metadata(metadata, where=path), path.stat().st_size + weights.stat().st_size)


def _sidecar_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _sidecar(path: Path) -> Header:
    """Read the JSON file next to a model in a format that cannot hold the facts itself, such as a TensorRT engine."""
    sidecar = _sidecar_path(path)
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
        facts, engine = content["facts"], content.get("engine", {})
        if not isinstance(facts, Mapping) or not isinstance(engine, Mapping):
            raise TypeError("`facts` and `engine` must be tables")
    except FileNotFoundError as error:
        raise ModelError(
            "the JSON file that describes this model is missing",
            where=sidecar,
            remedy=f"put {sidecar.name} next to {path.name}",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(sidecar, error) from error
    return Header(Facts.from_metadata(facts, where=sidecar), path.stat().st_size, engine=dict(engine))


def _onnx(path: Path) -> Header:
    """`metadata_props` of a ModelProto, by the protobuf wire format: fields are walked, the graph is stepped over.

    Field numbers (onnx.proto): ModelProto.graph = 7, .metadata_props = 14; StringStringEntryProto.key = 1, .value = 2.
    """
    metadata, graph = {}, False
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for number, begin, end in _fields(data, 0, len(data)):
                graph |= number == 7
                if number == 14:
                    pair = {part: data[b:e].decode("utf-8") for part, b, e in _fields(data, begin, end)}
                    metadata[pair.get(1, "")] = pair.get(2, "")
    except ValueError as error:  # also of mmap, for an empty file
        raise _damaged(path, error) from error
    if not graph:
        raise _damaged(path, "there is no graph in it")
    return Header(Facts.from_metadata(metadata, where=path), path.stat().st_size)


def _fields(data: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, begin, end of its content) of each field of the message in data[place:end].

    Raises ValueError where the bytes are no protobuf message. Wire types: 0 varint, 1 eight bytes, 2 length first,
    5 four bytes.
    """
    while place < end:
        tag, place = _varint(data, place, end)
        number, kind = tag >> 3, tag & 7
        begin = place
        if kind == 0:
            _, place = _varint(data, place, end)
        elif kind == 2:
            size, begin = _varint(data, place, end)
            place = begin + size
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError("no protobuf message")
        if place > end or number == 0:
            raise ValueError("cut off" if place > end else "no protobuf message")
        yield number, begin, place


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    """The number that begins at `place`, seven bits a byte, lowest first; and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise ValueError("cut off")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
    raise ValueError("no protobuf message")
