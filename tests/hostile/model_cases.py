"""Model files that are wrong or dangerous on purpose."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from fcos_cli.model.artifact import save
from fcos_cli.model.conventions import Conventions
from tests.hostile.contract import READ, Case
from tests.runtime.onnx_files import FACTS, write_onnx, write_openvino
from tests.tiny import tiny_artifact

Make = Callable[[Path], Path]
DAMAGED, FACT = "not a readable", "facts cannot be used|lacks the fact|metadata of the file is invalid"


class Payload:
    """Unpickling it makes the file `ran` in the working folder."""

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.system, ("touch ran",)


# --- safetensors -----------------------------------------------------------------------------------------------------


def weights(folder: Path) -> Path:
    save(folder / "x.safetensors", tiny_artifact())
    return folder / "x.safetensors"


def header(change: Callable[[dict[str, Any]], Any]) -> Make:
    """Weights whose JSON header was changed; what `change` returns, if anything, replaces it."""

    def make(folder: Path) -> Path:
        path = weights(folder)
        whole = path.read_bytes()
        size = struct.unpack("<Q", whole[:8])[0]
        content = json.loads(whole[8 : 8 + size])
        text = json.dumps(change(content) or content).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])
        return path

    return make


def fact(key: str, value: Any) -> Make:
    """Weights with another value of a fact: JSON values are written as such, text as it is."""
    text = value if isinstance(value, str) else json.dumps(value)
    return header(lambda content: content["__metadata__"].update({key: text}))


def model(**changes: Any) -> Make:
    """Weights with other settings of the network."""

    def change(content: dict[str, Any]) -> None:
        facts = content["__metadata__"]
        facts["model"] = json.dumps({**json.loads(facts["model"]), **changes})

    return header(change)


def geometry(**changes: Any) -> Make:
    return fact("geometry", {"mode": "letterbox", "size": [64, 64], "divisor": 32, "pad_value": 114, **changes})


def conventions(**changes: Any) -> Make:
    return fact("conventions", {**asdict(Conventions()), **changes})


def length(value: int) -> Make:
    def make(folder: Path) -> Path:
        path = weights(folder)
        path.write_bytes(struct.pack("<Q", value) + path.read_bytes()[8:])
        return path

    return make


def first_tensor(content: dict[str, Any]) -> dict[str, Any]:
    """The entry of a convolution's weights."""
    entry: dict[str, Any] = next(value for value in content.values() if len(value.get("shape", [])) == 4)
    return entry


def overlap(content: dict[str, Any]) -> None:
    entries = [value for key, value in content.items() if key.endswith(".weight")]
    entries[1]["data_offsets"] = entries[0]["data_offsets"]


def numbers(value: float) -> Make:
    def make(folder: Path) -> Path:
        artifact = tiny_artifact()
        for key, tensor in artifact.weights.items():
            if tensor.is_floating_point() and "head" in key:
                artifact.weights[key] = tensor * 0 + value
        save(folder / "x.safetensors", artifact)
        return folder / "x.safetensors"

    return make


def raw(content: bytes | Callable[[], bytes], name: str = "x.safetensors") -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content() if callable(content) else content)
        return folder / name

    return make


def deep_header() -> bytes:
    text = b'{"__metadata__": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    return struct.pack("<Q", len(text)) + text


CLASSES = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
SAFETENSORS = [
    Case("header-longer-than-the-file", length(2**40), DAMAGED),
    Case("header-of-16-exabytes", length(2**64 - 1), DAMAGED),
    Case("header-of-0-bytes", length(0), DAMAGED),
    Case("header-of-100000-levels", raw(deep_header), DAMAGED),
    Case("tensors-overlap", header(overlap), DAMAGED),
    Case("tensor-behind-the-file", header(lambda c: first_tensor(c).update(data_offsets=[2**40, 2**41])), DAMAGED),
    Case("tensor-backwards", header(lambda c: first_tensor(c).update(data_offsets=[100, 0])), DAMAGED),
    Case("tensor-of-huge-shape", header(lambda c: first_tensor(c).update(shape=[2**40, 2**40])), DAMAGED),
    Case("tensor-of-unknown-type", header(lambda c: first_tensor(c).update(dtype="F13")), DAMAGED),
    Case("tensor-of-another-shape", header(lambda c: first_tensor(c)["shape"].reverse()), "do not match the network"),
    Case(
        "tensor-missing", header(lambda c: c.update(other=c.pop("head.scales.0", c.pop(list(c)[-1])))), "do not match"
    ),
    Case("header-is-a-list", header(lambda c: [1]), DAMAGED),
    Case("no-facts", header(lambda c: c.pop("__metadata__") and None), "lacks the fact"),
    Case("safetensors-empty", raw(b""), DAMAGED),
    Case("safetensors-zero-bytes", raw(bytes(1000)), DAMAGED + "|lacks the fact"),
    Case("safetensors-is-a-pickle", raw(pickle.dumps(Payload())), DAMAGED),
    Case("version-newer", fact("format_version", 99), "format version 99"),
    Case("version-text", fact("format_version", '"new"'), FACT),
    Case("version-of-5000-digits", fact("format_version", "9" * 5000), FACT),
    Case("version-infinite", fact("format_version", "Infinity"), "format version"),
    Case("version-negative", fact("format_version", -1), FACT),
    Case("classes-too-few", fact("classes", CLASSES), "do not match the network|thresholds for"),
    Case("classes-none", fact("classes", []), FACT),
    Case("classes-twice", fact("classes", [{"id": 1, "name": "a"}] * 3), "twice"),
    Case("classes-of-numbers", fact("classes", [1, 2, 3]), FACT),
    Case("classes-300000", fact("classes", [{"id": n, "name": str(n)} for n in range(300_000)]), FACT),
    Case("class-id-infinite", fact("classes", '[{"id": Infinity, "name": "a"}]'), FACT),
    Case("class-id-beyond-64-bits", fact("classes", [*CLASSES, {"id": 2**70, "name": "c"}]), FACT),
    Case("facts-of-100000-levels", fact("provenance", "[" * 100_000 + "]" * 100_000), FACT),
    Case("provenance-is-a-list", fact("provenance", [1]), FACT),
    Case("provenance-is-text", fact("provenance", '"x"'), FACT),
    Case("facts-not-json", fact("thresholds", "{'global': 1}"), FACT),
    Case("thresholds-list", fact("thresholds", [0.5]), FACT),
    Case("threshold-nan", fact("thresholds", '{"global": NaN, "per_class": null}'), FACT),
    Case("threshold-7", fact("thresholds", {"global": 7, "per_class": None}), FACT),
    Case("thresholds-too-few", fact("thresholds", {"global": 0.5, "per_class": [0.5]}), "thresholds for"),
    Case("thresholds-of-text", fact("thresholds", {"global": 0.5, "per_class": ["a", "b", "c"]}), FACT),
    Case("geometry-list", fact("geometry", []), FACT),
    Case("geometry-of-0", geometry(size=[0, 0]), "size must be"),
    Case("geometry-of-a-million", geometry(size=[10**6, 10**6]), "size must be"),
    Case("geometry-infinite", geometry(size=[float("inf"), 64]), "size must be"),
    Case("geometry-divisor-huge", geometry(divisor=10**30), "divisor must be"),
    Case("geometry-padding-nan", geometry(pad_value=[float("nan"), 0, 0]), "pad_value must be"),
    Case("geometry-unknown", geometry(mode="spiral"), "mode must be"),
    Case("convention-of-text", conventions(point_offset="0.5"), FACT),
    Case("convention-nan", conventions(radius=float("nan")), FACT),
    Case("convention-negative", conventions(radius=-1.5), FACT),
    Case("convention-of-400-digits", conventions(radius=10**400), FACT),
    Case("convention-false-as-text", conventions(stride_normalised="false"), FACT),
    Case("backbone-unknown", model(backbone="no_such_net"), "cannot build|do not match"),
    Case("backbone-from-a-server", model(backbone="hf-hub:someone/something"), "cannot build"),
    Case("backbone-from-a-folder", model(backbone="local-dir:/etc"), "cannot build"),
    Case("channels-8192", model(channels=8192), "do not match"),
    Case("channels-of-400-digits", model(channels=4 * 10**400), FACT),
    Case("convs-a-million", model(convs=1_000_000), FACT),
    Case("ranges-nan", header(lambda c: nan_ranges(c)), FACT),
    Case("std-0", model(std=[0, 0, 0]), FACT),
    Case("setting-unknown", model(payload="x"), FACT),
    Case("model-is-a-list", fact("model", []), FACT),
    Case("weights-nan", numbers(float("nan")), "not finite"),
    Case("weights-infinite", numbers(float("inf")), "not finite"),
]


def nan_ranges(content: dict[str, Any]) -> None:
    facts = content["__metadata__"]
    facts["model"] = facts["model"].replace("[16.0", "[NaN")


# --- checkpoints of others -------------------------------------------------------------------------------------------


def archive(payload: bytes) -> bytes:
    """What torch.save writes, with this pickle in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("archive/data.pkl", payload)
        packed.writestr("archive/version", "3\n")
    return stream.getvalue()


def zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", bytes(60 << 20))
        packed.writestr("archive/version", "3\n")
    return stream.getvalue()


DEEP = b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."
CHECKPOINTS = [
    Case("pth-runs-a-command", raw(lambda: pickle.dumps(Payload(), 2), "x.pth"), "run code"),
    Case("pth-archive-runs-a-command", raw(lambda: archive(pickle.dumps(Payload(), 2)), "x.pth"), "run code"),
    Case("pth-builtin-eval", raw(archive(b"\x80\x02c__builtin__\neval\nX\x01\0\0\x001\x85R."), "x.pth"), "run code"),
    Case("pth-cut", raw(archive(b"\x80\x02}q\0.")[:60], "x.pth"), DAMAGED + "|run code"),
    Case("pth-of-100000-levels", raw(lambda: archive(DEEP), "x.pth"), DAMAGED + "|holds"),
    Case("pth-zip-bomb", raw(zip_bomb, "x.pth"), DAMAGED),
    Case("pth-memo-of-4-gb", raw(archive(b"\x80\x02Nr\xff\xff\xff\xff."), "x.pth"), DAMAGED + "|holds"),
    Case("pth-string-of-4-gb", raw(archive(b"\x80\x02X\xff\xff\xff\xffabc."), "x.pth"), DAMAGED + "|holds"),
    Case("pth-page", raw(b"<html>404</html>", "x.pth"), DAMAGED),
    Case("pth-empty", raw(b"", "x.pth"), DAMAGED),
    Case("pth-no-tensors", raw(archive(b"\x80\x02}q\0."), "x.pth"), "no dict of tensors"),
]


# --- exported models -------------------------------------------------------------------------------------------------


def external_data(location: str) -> Make:
    """An ONNX file whose weights are said to be in another file."""

    def make(folder: Path) -> Path:
        import onnx

        path = write_onnx(folder / "x.onnx")
        loaded = onnx.load(path)
        tensor = loaded.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.ClearField("int64_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        path.write_bytes(loaded.SerializeToString())
        return path

    return make


def onnx_with(**changes: Any) -> Make:
    return lambda folder: write_onnx(folder / "x.onnx", facts=replace(FACTS, **changes))


def onnx_promises(text: str) -> Make:
    """An ONNX model whose promises are this text."""

    def make(folder: Path) -> Path:
        import onnx

        path = write_onnx(folder / "x.onnx")
        model = onnx.load(path)
        onnx.helper.set_model_props(model, {**FACTS.to_metadata(), "promises": text})
        onnx.save(model, path)
        return path

    return make


def onnx_cut(folder: Path) -> Path:
    path = write_onnx(folder / "x.onnx")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def openvino(change: Callable[[str], str] | None, *, weights: bytes | None = None) -> Make:
    """An OpenVINO model with another text. change: None removes its .bin. weights: another .bin."""

    def make(folder: Path) -> Path:
        path = write_openvino(folder / "x.xml")
        if change is None:
            path.with_suffix(".bin").unlink()
        else:
            path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        if weights is not None:
            path.with_suffix(".bin").write_bytes(weights)
        return path

    return make


def laughs(text: str) -> str:
    rows = ['<!ENTITY e0 "lol">', *(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))]
    start = text.index("<net")
    return text[:start] + f"<!DOCTYPE net [{''.join(rows)}]>" + text[start:].replace("<layers>", "<layers>&e9;", 1)


def engine(sidecar: Any, *, content: bytes = b"junk") -> Make:
    def make(folder: Path) -> Path:
        (folder / "x.engine").write_bytes(content)
        if sidecar is not None:
            text = sidecar if isinstance(sidecar, str) else json.dumps(sidecar)
            (folder / "x.engine.json").write_text(text, encoding="utf-8")
        return folder / "x.engine"

    return make


def vectors(change: Callable[[dict[str, Any]], Any]) -> Make:
    """A model with test vectors that were changed; text that `change` returns replaces them."""

    def make(folder: Path) -> Path:
        png = png_of(8, 8)
        entry = {"name": "a", "size": [32, 48], "png": png, "cuts": [], "detections": [], "others": []}
        content: dict[str, Any] = {"version": 1, "pictures": [entry]}
        text = change(content)
        text = text if isinstance(text, str) else json.dumps(content)
        return write_onnx(folder / "x.onnx", facts=replace(FACTS, vectors=text))

    return make


def png_of(width: int, height: int) -> str:
    """A black picture as base64 PNG; the header of a large one is small."""
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def picture(**changes: Any) -> Make:
    return vectors(lambda content: content["pictures"][0].update(changes))


UNREADABLE = "test vectors of this file cannot be read"
VECTORS = [
    Case("vectors-of-100000-levels", vectors(lambda _: "[" * 100_000 + "]" * 100_000), UNREADABLE),
    Case("vectors-cut", vectors(lambda content: json.dumps(content)[:-40]), UNREADABLE),
    Case("vectors-png-bomb", picture(png=png_of(9000, 9000), size=[32768, 128]), UNREADABLE),
    Case("vectors-input-of-3-gb", picture(size=[32768, 32768]), UNREADABLE),
    Case("vectors-a-million-pictures", vectors(lambda c: c.update(pictures=[0] * 1_000_000)), UNREADABLE),
    Case("vectors-a-million-detections", picture(others=[[0, 0, 1, 1, 0.5, 0]] * 1_000_000), UNREADABLE),
    Case("vectors-of-infinity", picture(detections=[[0, 0, float("inf"), 1, 0.5, 0]]), UNREADABLE),
    Case("vectors-unchanged", picture(), READ),
]

EXPORTS = [
    Case("onnx-data-outside-its-folder", external_data("../../../../../../etc/passwd"), "cannot load|outside"),
    Case("onnx-data-absolute", external_data("/etc/passwd"), "cannot load|outside"),
    Case("onnx-data-missing", external_data("nowhere.bin"), "cannot load"),
    Case("onnx-cut", onnx_cut, DAMAGED),
    Case("onnx-junk", raw(bytes(range(256)) * 10, "x.onnx"), DAMAGED),
    Case("onnx-empty", raw(b"", "x.onnx"), DAMAGED),
    Case("onnx-field-of-exabytes", raw(b"\x3a" + b"\xff" * 9 + b"\x01", "x.onnx"), DAMAGED),
    Case("onnx-foreign", lambda folder: write_onnx(folder / "x.onnx", facts=None), "lacks the fact"),
    Case("onnx-threshold-nan", onnx_with(threshold=float("nan")), FACT),
    Case("onnx-limit-nan", onnx_with(nms_iou=float("nan")), FACT),
    Case("onnx-detections-negative", onnx_with(max_detections=-1), FACT),
    Case("onnx-provenance-is-a-list", onnx_with(provenance=[1]), FACT),
    Case("onnx-model-is-text", onnx_with(model="x"), FACT),
    Case("onnx-verified-is-text", onnx_with(verified="yes"), FACT),
    Case("onnx-verified-is-a-list", onnx_with(verified=[]), FACT),
    Case("onnx-promises-of-nan", onnx_promises('[{"metric": "recall", "level": NaN}]'), FACT),
    Case("onnx-promises-no-list", onnx_promises("7"), FACT),
    Case("onnx-promises-of-100000-levels", onnx_promises("[" * 100_000), FACT),
    Case("onnx-promises-cut", onnx_promises('[{"metric": "re'), FACT),
    Case("openvino-without-bin", openvino(None), "weights of this model are missing"),
    Case("openvino-bin-cut", openvino(lambda text: text, weights=b"x"), "cannot load"),
    Case("openvino-entity-bomb", openvino(laughs), DAMAGED),
    Case("openvino-cut", openvino(lambda text: text[:500]), DAMAGED),
    Case("openvino-not-a-net", openvino(lambda text: "<html/>"), "lacks the fact"),
    Case(
        "openvino-offset-beyond-bin",
        openvino(lambda text: text.replace('offset="0"', 'offset="9999999999"')),
        "cannot load",
    ),
    Case("engine-without-record", engine(None), "JSON file that describes this model is missing"),
    Case("engine-record-junk", engine("\0\1\2"), DAMAGED),
    Case("engine-record-list", engine([]), DAMAGED),
    Case("engine-record-of-100000-levels", engine("[" * 100_000), DAMAGED),
    Case("engine-record-empty", engine({"facts": {}, "engine": {}}), "lacks the fact"),
    Case("engine-record-of-numbers", engine({"facts": {"format_version": 1}, "engine": {}}), FACT),
    Case("engine-junk", engine({"facts": FACTS.to_metadata(), "engine": {}}), "record of this engine is invalid"),
    Case("model-without-suffix", raw(b"junk", "x"), "not a supported model format"),
    Case("model-unchanged", weights, READ),
    Case("onnx-unchanged", lambda folder: write_onnx(folder / "x.onnx"), READ),
    Case("openvino-unchanged", openvino(lambda text: text), READ),
]
