"""An exported file, cut open: its raw outputs, its post-processing alone, and the whole of it.

The proof compares each part with the reference's own, so that a difference is found where it arises. Notable choices:

- Raw outputs and post-processing are cut out of the very file that was exported, in memory, at the tensors named
  `cls_p3` … `ctr_p7`; nothing is exported a second time.
- A runtime may fold or fuse tensors away; where the file cannot be cut, `NoSubgraph` says why and the layer counts as
  not measured. An engine cannot be cut at all (`OpaqueModel`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Pixels
from fcos_cli.errors import MissingExtra, ModelError
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.graph_io import INPUT, OUTPUTS, RAW, SIZES
from fcos_cli.runtime.openvino import leave_signal_stack
from fcos_cli.runtime.results import RawDetections

PictureSizes = npt.NDArray[np.int64] | None
Raw = dict[str, npt.NDArray[np.float32]]
FixedShape = tuple[int | None, int | None, int | None]
"""(batch, height, width) of `images` where the file fixes them, None where it takes any."""

SizeRange = tuple[tuple[int, int], tuple[int, int]]

CONVOLUTION_OPS = frozenset({"Conv", "ConvInteger", "QLinearConv", "FusedConv", "Convolution", "GroupConvolution"})
"""Operations of a network's body: none of them may be left in a cut-out post-processing."""


class NoSubgraph(ModelError):
    """This part cannot be taken out of this file, and why."""


class ModelOutput(NamedTuple):
    """Detections, and whether NMS vouches for them: bool [B], None where its form needs no such word."""

    detections: RawDetections
    converged: npt.NDArray[np.bool_] | None = None


class ExportedModel(Protocol):
    """backend: who runs it. shape: what the file takes. span: least and greatest (height, width) where it is not any.

    images: [B, 3, H, W], RGB 0…255. inside: int64 [B, 2], height and width of each picture in it; None = all of it.
    """

    backend: str
    shape: FixedShape
    span: SizeRange | None

    def raw(self, images: Pixels) -> Raw:
        """Raw outputs by name, float32 [B, ·, h, w]. Raises NoCut."""
        ...

    def post(self, raw: Raw, images: Pixels) -> ModelOutput:
        """The file's own post-processing of given raw outputs; `images` counts by its shape. Raises NoCut."""
        ...

    def detect(self, images: Pixels, inside: PictureSizes = None) -> ModelOutput:
        """The whole file."""
        ...


class OpaqueModel:
    """A detector that cannot be opened: only the whole of it can be measured. It takes any batch by itself."""

    def __init__(self, detector: Detector) -> None:
        self.detector, self.backend = detector, detector.backend
        limits, record = getattr(detector, "limits", None), getattr(detector, "record", None)
        self.shape: FixedShape = (None, None, None) if limits is None else (None, limits.height, limits.width)
        self.span: SizeRange | None = None
        if record is not None:  # an engine's optimisation profile
            self.span = (record.min.height, record.min.width), (record.max.height, record.max.width)

    def raw(self, images: Pixels) -> Raw:  # noqa: ARG002 (the protocol's signature)
        raise NoSubgraph("raw outputs cannot be extracted from this format")

    def post(self, raw: Raw, images: Pixels) -> ModelOutput:  # noqa: ARG002 (the protocol's signature)
        raise NoSubgraph("post-processing cannot be extracted from this format")

    def detect(self, images: Pixels, inside: PictureSizes = None) -> ModelOutput:
        clips = self.detector.facts.conventions.clip == "picture"
        return ModelOutput(self.detector(images, inside) if clips else self.detector(images))


class OnnxModel:
    """An `.onnx` file in ONNX Runtime on the CPU. Raises MissingExtra, and ModelError for a file it cannot run."""

    backend = "onnxruntime"
    span: SizeRange | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sessions: dict[str, Any] = {}
        sizes = next(given.shape for given in self._session("detect").get_inputs() if given.name == INPUT)
        batch, _, height, width = (size if isinstance(size, int) else None for size in sizes)
        self.shape: FixedShape = (batch, height, width)

    def raw(self, images: Pixels) -> Raw:
        return dict(zip(RAW, self._run("raw", _feed(images), RAW), strict=True))

    def post(self, raw: Raw, images: Pixels) -> ModelOutput:
        return self._found("post", {**_feed(images), **raw})

    def detect(self, images: Pixels, inside: PictureSizes = None) -> ModelOutput:
        return self._found("detect", _feed(images, inside))

    def _found(self, cut: str, feed: Mapping[str, Any]) -> ModelOutput:
        present = [output.name for output in self._session(cut).get_outputs()]
        return to_output(dict(zip(present, self._run(cut, feed, present), strict=True)))

    def _run(self, cut: str, feed: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        session = self._session(cut)
        wanted = {given.name for given in session.get_inputs()}  # post-processing of a fixed size needs no `images`
        values: list[Any] = session.run(list(outputs), {key: feed[key] for key in wanted})
        return values

    def _session(self, cut: str) -> Any:
        if cut not in self._sessions:
            self._sessions[cut] = self._load(cut)
        return self._sessions[cut]

    def _load(self, cut: str) -> Any:
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("ONNX Runtime is not installed", extra="onnx") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        source: str | bytes = str(self.path)
        if cut != "detect":
            model = onnx.load(str(self.path))
            source = (onnx_raw(model) if cut == "raw" else onnx_post(model)).SerializeToString()
        try:
            return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            kind = ModelError if cut == "detect" else NoSubgraph
            raise kind(f"ONNX Runtime refuses this file's {cut} ({_first_line(error)})", where=self.path) from error


def onnx_raw(model: Any) -> Any:
    """The ONNX model with its raw outputs as outputs, in place."""
    import onnx

    inner = {name for node in model.graph.node for name in node.output}
    _require(inner)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in RAW)
    return model


def onnx_post(model: Any) -> Any:
    """What lies behind the raw outputs of an ONNX model, as a model that takes them. Raises NoCut."""
    import onnx
    from onnx.utils import Extractor

    _require({name for node in model.graph.node for name in node.output})
    del model.graph.quantization_annotation[:]  # the extractor does not know them, and they do not change a number
    outputs = [output.name for output in model.graph.output]
    ranks = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4) for name in RAW]
    model.graph.value_info.extend(ranks)  # the last of a name counts
    given = [value.name for value in model.graph.input]
    post = Extractor(model).extract_model([*given, *RAW], outputs)
    dragged = sorted({node.op_type for node in post.graph.node} & CONVOLUTION_OPS)
    if dragged:
        raise NoSubgraph(
            f"post-processing reads the network's body past its raw outputs (it needs {', '.join(dragged)})"
        )
    read = {name for node in post.graph.node for name in node.input}
    kept = [value for value in post.graph.input if value.name in read]
    del post.graph.input[:]
    post.graph.input.extend(kept)
    return post


class OpenVinoModel:
    """An OpenVINO `.xml` (or an `.onnx`) on the CPU. hint: INFERENCE_PRECISION_HINT of the body (`f32`, `bf16`);
    post-processing alone is always run in f32. Raises MissingExtra, and ModelError for a file it cannot read.
    """

    backend = "openvino"
    span: SizeRange | None = None

    def __init__(self, path: Path, *, hint: str = "f32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtra("OpenVINO is not installed", extra="openvino") from error
        self.path, self.hint, self.core = path, hint, openvino.Core()
        self._compiled: dict[str, Any] = {}
        inputs = {name: port for port in self._read().inputs for name in port.get_names()}
        self._takes = [name for name in (INPUT, SIZES) if name in inputs]
        sizes = [size.get_length() if size.is_static else None for size in inputs[INPUT].partial_shape]
        self.shape: FixedShape = (sizes[0], sizes[2], sizes[3])

    def raw(self, images: Pixels) -> Raw:
        return dict(zip(RAW, self._run("raw", self._fed(images)), strict=True))

    def post(self, raw: Raw, images: Pixels) -> ModelOutput:
        return self._found("post", [*self._fed(images), *(raw[name] for name in RAW)])

    def detect(self, images: Pixels, inside: PictureSizes = None) -> ModelOutput:
        return self._found("detect", self._fed(images, inside))

    def _fed(self, images: Pixels, inside: PictureSizes = None) -> list[Any]:
        feed = _feed(images, inside)
        return [feed[name] for name in self._takes]

    def _found(self, cut: str, feed: list[Any]) -> ModelOutput:
        values = self._run(cut, feed)
        names = (*OUTPUTS, "converged")[: len(values)]  # a runtime may lose names, never the order
        return to_output(dict(zip(names, values, strict=True)))

    def _run(self, cut: str, feed: list[Any]) -> list[Any]:
        if cut not in self._compiled:
            self._compiled[cut] = self._compile(cut)
        return list(self._compiled[cut](feed).to_tuple())

    def _compile(self, cut: str) -> Any:
        model = self._read()
        if cut != "detect":
            model = openvino_raw(model) if cut == "raw" else openvino_post(model)
        hint = "f32" if cut == "post" else self.hint
        compiled = self.core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        leave_signal_stack()
        return compiled

    def _read(self) -> Any:
        try:
            return self.core.read_model(str(self.path))
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot read this file ({_first_line(error)})", where=self.path) from error


def openvino_raw(model: Any) -> Any:
    """The OpenVINO model with its raw outputs as outputs, in the order of `RAW`."""
    import openvino

    ports = _ports(model)
    return openvino.Model([ports[name] for name in RAW], model.get_parameters(), "raw")


def openvino_post(model: Any) -> Any:
    """What lies behind the raw outputs, as a model of (images, *RAW); changes `model`. Raises NoCut."""
    import openvino
    from openvino import opset13

    ports, parameters = _ports(model), list(model.get_parameters())
    for name in RAW:
        port = ports[name]
        given = opset13.parameter(port.partial_shape, openvino.Type.f32, name)
        for consumer in port.get_target_inputs():
            consumer.replace_source_output(given.output(0))
        parameters.append(given)
    post = openvino.Model(model.get_results(), parameters, "post")
    dragged = sorted({node.get_type_name() for node in post.get_ops()} & CONVOLUTION_OPS)
    if dragged:
        raise NoSubgraph(
            f"post-processing reads the network's body past its raw outputs (it needs {', '.join(dragged)})"
        )
    return post


def _ports(model: Any) -> dict[str, Any]:
    """Every port of the raw outputs, by tensor name."""
    ports = {name: port for node in model.get_ops() for port in node.outputs() for name in port.get_names()}
    _require(set(ports))
    return ports


def _require(names: set[str]) -> None:
    lost = [name for name in RAW if name not in names]
    if lost:
        raise NoSubgraph(f"the file has no tensors named {', '.join(lost[:3])}{' …' if len(lost) > 3 else ''}")


def _feed(images: Pixels, inside: PictureSizes = None) -> dict[str, npt.NDArray[Any]]:
    """All inputs that a file may have."""
    whole = np.tile(np.array(images.shape[2:], np.int64), (len(images), 1))
    return {INPUT: images, SIZES: whole if inside is None else inside}


def to_output(outputs: Mapping[str, npt.NDArray[Any]]) -> ModelOutput:
    """Outputs by name → detections in the types that are promised; runtimes hand integers in several."""
    detections = RawDetections(
        boxes=outputs["boxes"].astype(np.float32, copy=False),
        scores=outputs["scores"].astype(np.float32, copy=False),
        classes=outputs["classes"].astype(np.int64, copy=False),
        counts=outputs["counts"].astype(np.int64, copy=False),
    )
    told = outputs.get("converged")
    return ModelOutput(detections, None if told is None else told.astype(bool))


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
