"""Read the metadata of a model file without torch, onnx, safetensors, or any library that runs the model.

`fcos info` is therefore instant for files of any kind and size. Truncated, foreign and too new files are rejected with
a clear error before a library is loaded.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from fcos_cli.errors import ModelError
from fcos_cli.model.metadata import FOREIGN_WEIGHTS
from fcos_cli.runtime.facts import Facts


class Header(NamedTuple):
    """Metadata of a model file.

    facts: as in every artifact. bytes: total size of all files of the model. parameters: number of weights, counted;
    None if that takes loading the graph. engine: build record of a TensorRT engine.
    """

    facts: Facts
    bytes: int
    parameters: int | None = None
    engine: dict[str, Any] | None = None


def read_header(path: Path) -> Header:
    """Read the header of a `.safetensors`, `.onnx`, `.xml` or `.engine` file.

    Raises ModelError naming the file if it is of unknown type, truncated, damaged, incomplete, foreign or too new.
    """
    readers = {".safetensors": _safetensors, ".onnx": _onnx, ".xml": _openvino, ".engine": _sidecar}
    reader = readers.get(path.suffix.lower(), _sidecar if sidecar_path(path).is_file() else None)
    if reader is None:
        raise ModelError(
            f"{path.suffix or 'a file without a suffix'} is not a supported model format",
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
        remedy="the file may be truncated or of another type; copy it again",
    )


def _safetensors(path: Path) -> Header:
    """Weights store the post-processing limits in their ModelConfig. They are the parity reference themselves."""
    metadata, parameters = _tensors(path)
    try:
        config = json.loads(metadata.get("model", "{}"))
        names = {"score": "score_threshold", "nms_iou": "nms_iou", "max_detections": "max_detections"}
        limits = {key: config.get(name, getattr(Facts, name)) for key, name in names.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"the metadata of the file is invalid: {error}", where=path) from error
    metadata |= {"limits": json.dumps(limits), "precision": '"fp32"', "verified": "null"}
    facts = Facts.from_metadata(metadata, where=path, remedy=FOREIGN_WEIGHTS)
    return Header(facts, path.stat().st_size, parameters)


def _tensors(path: Path) -> tuple[dict[str, str], int]:
    """Read the JSON at the start of a .safetensors file. Return its metadata and the number of values in all tensors.

    Layout (https://huggingface.co/docs/safetensors): length of the JSON as a little-endian uint64, the JSON, and the
    tensors, whose `data_offsets` count from its end. Raises ModelError if the file is not as long as they say.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size - 8:
                raise ValueError("its header is longer than the file")
            tensors = json.loads(file.read(length))
        metadata: dict[str, str] = tensors.pop("__metadata__", {})
        end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        if size != 8 + length + end:
            raise ValueError(f"{size:,} bytes, not {8 + length + end:,}")
        return metadata, sum(prod(tensor["shape"]) for tensor in tensors.values())
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _openvino(path: Path) -> Header:
    """`rt_info` → `fcos` of the intermediate representation: <fcos><key value="…"/> … </fcos>."""
    from xml.etree import ElementTree

    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(
            "the weights of this model are missing: an OpenVINO model is two files",
            where=weights,
            remedy=f"put {weights.name} next to {path.name}",
        )
    try:
        entries = ElementTree.parse(path).getroot().find("rt_info/fcos")
    except ElementTree.ParseError as error:
        raise _damaged(path, error) from error
    metadata = {} if entries is None else {entry.tag: entry.get("value", "") for entry in entries}
    return Header(Facts.from_metadata(metadata, where=path), path.stat().st_size + weights.stat().st_size)


def sidecar_path(path: Path) -> Path:
    """`best.engine` → `best.engine.json`."""
    return path.with_name(path.name + ".json")


def _sidecar(path: Path) -> Header:
    """Read the JSON file next to a model in a format that cannot hold the facts itself, such as a TensorRT engine."""
    sidecar = sidecar_path(path)
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
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(sidecar, error) from error
    return Header(Facts.from_metadata(facts, where=sidecar), path.stat().st_size, engine=dict(engine))


def _onnx(path: Path) -> Header:
    """Read `metadata_props` of a ModelProto from the protobuf wire format; the graph is skipped.

    Field numbers (onnx.proto): ModelProto.graph = 7, .metadata_props = 14; StringStringEntryProto.key = 1, .value = 2.
    """
    metadata, graph = {}, False
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for number, begin, end in fields(data, 0, len(data)):
                graph |= number == 7
                if number == 14:
                    pair = {part: data[b:e].decode("utf-8") for part, b, e in fields(data, begin, end)}
                    metadata[pair.get(1, "")] = pair.get(2, "")
    except ValueError as error:  # mmap raises it too, for an empty file
        raise _damaged(path, error) from error
    if not graph:
        raise _damaged(path, "it contains no graph")
    return Header(Facts.from_metadata(metadata, where=path), path.stat().st_size)


def fields(data: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, end of the content) of each field of the message in data[place:end].

    Raises ValueError if the bytes are not a protobuf message. Wire types: 0 varint, 1 eight bytes, 2 length-delimited,
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
            raise ValueError("not a protobuf message")
        if place > end or number == 0:
            raise ValueError("truncated" if place > end else "not a protobuf message")
        yield number, begin, place


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    """Decode the varint at `place`. Return its value and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise ValueError("truncated")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
    raise ValueError("not a protobuf message")
