"""Run an exported file in parts: its raw outputs, its post-processing alone, and all of it.

The parity check compares each part with the reference, so that a difference is found where it arises. Design notes:

- Both subgraphs are cut out of the exported file itself, in memory, at the tensors that `raw_names` lists; nothing is
  exported a second time.
- A runtime may fold or fuse tensors away. If the file cannot be cut, `NoSubgraph` says why and the layer counts as not
  measured. An engine cannot be cut at all (`OpaqueModel`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Pixels
from fcos_cli.errors import MissingExtra, ModelError, first_line
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.graph_io import CONVERGED, INPUT, OUTPUTS, SIZES, raw_names
from fcos_cli.runtime.onnxruntime import allowed_threads
from fcos_cli.runtime.openvino import leave_signal_stack, make_core
from fcos_cli.runtime.results import RawDetections

ImageSizes = npt.NDArray[np.int64] | None
Raw = dict[str, npt.NDArray[np.float32]]
FixedShape = tuple[int | None, int | None, int | None]
"""(batch, height, width) of `images` as fixed by the file; None = any."""

SizeRange = tuple[tuple[int, int], tuple[int, int]]

CONVOLUTION_OPS = frozenset(
    {"Conv", "ConvInteger", "QLinearConv", "FusedConv", "Convolution", "GroupConvolution"}
    | {"DeformConv", "DeformableConvolution"}
)
"""Operations of the backbone and head, which must not remain in the post-processing subgraph."""


class NoSubgraph(ModelError):
    """A subgraph cannot be extracted from a file, with the reason."""


class ModelOutput(NamedTuple):
    """Detections, and whether NMS converged: bool [B], None for an NMS that always does."""

    detections: RawDetections
    converged: npt.NDArray[np.bool_] | None = None


class ExportedModel(Protocol):
    """An exported model that can be run in parts.

    backend: the runtime. shape: fixed input dimensions. span: smallest and largest (height, width); None = no limits.
    images: [B, 3, H, W], RGB 0…255. inside: int64 [B, 2], (height, width) of each image in its input; None = all of it.
    """

    backend: str
    shape: FixedShape
    span: SizeRange | None

    def raw(self, images: Pixels) -> Raw:
        """Raw outputs by name, float32 [B, ·, h, w]. Raises NoSubgraph."""
        ...

    def post(self, raw: Raw, images: Pixels) -> ModelOutput:
        """Run the file's own post-processing on `raw`; only the shape of `images` matters. Raises NoSubgraph."""
        ...

    def detect(self, images: Pixels, inside: ImageSizes = None) -> ModelOutput:
        """Run the whole file."""
        ...


class OpaqueModel:
    """A detector that can only be measured as a whole. It accepts any batch size."""

    def __init__(self, detector: Detector) -> None:
        self.detector, self.backend = detector, detector.backend
        limits, record = getattr(detector, "limits", None), getattr(detector, "record", None)
        self.shape: FixedShape = (None, None, None) if limits is None else (None, limits.height, limits.width)
        self.span: SizeRange | None = None
        if record is not None:  # the optimization profile of an engine
            self.span = (record.min.height, record.min.width), (record.max.height, record.max.width)

    def raw(self, images: Pixels) -> Raw:  # noqa: ARG002 (the protocol's signature)
        raise NoSubgraph("raw outputs cannot be extracted from this format")

    def post(self, raw: Raw, images: Pixels) -> ModelOutput:  # noqa: ARG002 (the protocol's signature)
        raise NoSubgraph("post-processing cannot be extracted from this format")

    def detect(self, images: Pixels, inside: ImageSizes = None) -> ModelOutput:
        clips = self.detector.facts.conventions.clip == "picture"
        return ModelOutput(self.detector(images, inside) if clips else self.detector(images))


class OnnxModel:
    """An `.onnx` file in ONNX Runtime on the CPU. strides: of the model's levels, which name its raw outputs.

    Raises MissingExtra, and ModelError if it cannot run the file.
    """

    backend = "onnxruntime"
    span: SizeRange | None = None

    def __init__(self, path: Path, *, strides: Sequence[int]) -> None:
        self.path, self.names = path, raw_names(strides)
        self._sessions: dict[str, Any] = {}
        sizes = next(item.shape for item in self._session("detect").get_inputs() if item.name == INPUT)
        batch, _, height, width = (size if isinstance(size, int) else None for size in sizes)
        self.shape: FixedShape = (batch, height, width)

    def raw(self, images: Pixels) -> Raw:
        return dict(zip(self.names, self._run("raw", _feed(images), self.names), strict=True))

    def post(self, raw: Raw, images: Pixels) -> ModelOutput:
        return self._detect("post", {**_feed(images), **raw})

    def detect(self, images: Pixels, inside: ImageSizes = None) -> ModelOutput:
        return self._detect("detect", _feed(images, inside))

    def _detect(self, part: str, feed: Mapping[str, Any]) -> ModelOutput:
        names = [output.name for output in self._session(part).get_outputs()]
        return to_output(dict(zip(names, self._run(part, feed, names), strict=True)))

    def _run(self, part: str, feed: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        session = self._session(part)
        names = {item.name for item in session.get_inputs()}  # post-processing of a fixed size does not need `images`
        values: list[Any] = session.run(list(outputs), {name: feed[name] for name in names})
        return values

    def _session(self, part: str) -> Any:
        if part not in self._sessions:
            self._sessions[part] = self._load(part)
        return self._sessions[part]

    def _load(self, part: str) -> Any:
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("onnx or ONNX Runtime is not installed", extra="train") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = allowed_threads()
        source: str | bytes = str(self.path)
        if part != "detect":
            model = onnx.load(str(self.path))
            source = (onnx_raw if part == "raw" else onnx_post)(model, self.names).SerializeToString()
        try:
            return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            kind, what = (ModelError, "file") if part == "detect" else (NoSubgraph, f"{part} subgraph")
            raise kind(f"ONNX Runtime cannot load the {what} ({first_line(error)})", where=self.path) from error


def onnx_raw(model: Any, names: Sequence[str]) -> Any:
    """Make the raw outputs `names` the outputs of an ONNX model, in place."""
    import onnx

    _require_raw(names, {name for node in model.graph.node for name in node.output})
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    return model


def onnx_post(model: Any, names: Sequence[str]) -> Any:
    """Extract the part of an ONNX model after its raw outputs, as a model that takes them. Raises NoSubgraph."""
    import onnx
    from onnx.utils import Extractor

    _require_raw(names, {name for node in model.graph.node for name in node.output})
    del model.graph.quantization_annotation[:]  # the extractor cannot handle it, and values do not depend on it
    outputs = [output.name for output in model.graph.output]
    ranks = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4) for name in names]
    model.graph.value_info.extend(ranks)  # overrides earlier entries of the same name
    inputs = [value.name for value in model.graph.input]
    post = Extractor(model).extract_model([*inputs, *names], outputs)
    _refuse_convolutions({node.op_type for node in post.graph.node})
    read = {name for node in post.graph.node for name in node.input}
    used = [value for value in post.graph.input if value.name in read]
    del post.graph.input[:]
    post.graph.input.extend(used)
    return post


class OpenVinoModel:
    """An OpenVINO `.xml` (or an `.onnx`) on the CPU.

    strides: of the model's levels. Raises MissingExtra, and ModelError if the file cannot be read.
    """

    backend = "openvino"
    span: SizeRange | None = None

    def __init__(self, path: Path, *, strides: Sequence[int]) -> None:
        self.path, self.names, self.core = path, raw_names(strides), make_core()
        self._compiled: dict[str, Any] = {}
        inputs = {name: port for port in self._read().inputs for name in port.get_names()}
        self._inputs = [name for name in (INPUT, SIZES) if name in inputs]
        sizes = [size.get_length() if size.is_static else None for size in inputs[INPUT].partial_shape]
        self.shape: FixedShape = (sizes[0], sizes[2], sizes[3])

    def raw(self, images: Pixels) -> Raw:
        return dict(zip(self.names, self._run("raw", self._feed(images)), strict=True))

    def post(self, raw: Raw, images: Pixels) -> ModelOutput:
        return self._detect("post", [*self._feed(images), *(raw[name] for name in self.names)])

    def detect(self, images: Pixels, inside: ImageSizes = None) -> ModelOutput:
        return self._detect("detect", self._feed(images, inside))

    def _feed(self, images: Pixels, inside: ImageSizes = None) -> list[Any]:
        feed = _feed(images, inside)
        return [feed[name] for name in self._inputs]

    def _detect(self, part: str, feed: list[Any]) -> ModelOutput:
        values = self._run(part, feed)
        names = (*OUTPUTS, CONVERGED)[: len(values)]  # a runtime may lose the names but keeps the order
        return to_output(dict(zip(names, values, strict=True)))

    def _run(self, part: str, feed: list[Any]) -> list[Any]:
        if part not in self._compiled:
            self._compiled[part] = self._compile(part)
        return list(self._compiled[part](feed).to_tuple())

    def _compile(self, part: str) -> Any:
        model = self._read()
        if part != "detect":
            model = (openvino_raw if part == "raw" else openvino_post)(model, self.names)
        compiled = self.core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        leave_signal_stack()
        return compiled

    def _read(self) -> Any:
        try:
            return self.core.read_model(str(self.path))
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot read this file ({first_line(error)})", where=self.path) from error


def openvino_raw(model: Any, names: Sequence[str]) -> Any:
    """Build a model of the raw outputs `names`, in this order."""
    import openvino

    ports = _ports(model, names)
    return openvino.Model([ports[name] for name in names], model.get_parameters(), "raw")


def openvino_post(model: Any, names: Sequence[str]) -> Any:
    """Build a model (images, *names) → detections from the part after the raw outputs; modifies `model`.

    Raises NoSubgraph.
    """
    import openvino
    from openvino import opset13

    ports, parameters = _ports(model, names), list(model.get_parameters())
    for name in names:
        port = ports[name]
        parameter = opset13.parameter(port.partial_shape, openvino.Type.f32, name)
        for consumer in port.get_target_inputs():
            consumer.replace_source_output(parameter.output(0))
        parameters.append(parameter)
    post = openvino.Model(model.get_results(), parameters, "post")
    _refuse_convolutions({node.get_type_name() for node in post.get_ops()})
    return post


def _ports(model: Any, names: Sequence[str]) -> dict[str, Any]:
    """All output ports of the graph by tensor name. Raises NoSubgraph if a raw output is missing."""
    ports = {name: port for node in model.get_ops() for port in node.outputs() for name in port.get_names()}
    _require_raw(names, set(ports))
    return ports


def _refuse_convolutions(ops: set[str]) -> None:
    if convolutions := sorted(ops & CONVOLUTION_OPS):
        raise NoSubgraph(
            f"post-processing depends on more of the network than its raw outputs ({', '.join(convolutions)})"
        )


def _require_raw(names: Sequence[str], present: set[str]) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise NoSubgraph(f"the file has no tensors named {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}")


def _feed(images: Pixels, inside: ImageSizes = None) -> dict[str, npt.NDArray[Any]]:
    """All inputs that a file may have."""
    whole = np.tile(np.array(images.shape[2:], np.int64), (len(images), 1))
    return {INPUT: images, SIZES: whole if inside is None else inside}


def to_output(outputs: Mapping[str, npt.NDArray[Any]]) -> ModelOutput:
    """Convert outputs by name."""
    detections = RawDetections.of(*(outputs[name] for name in OUTPUTS))
    converged = outputs.get(CONVERGED)
    return ModelOutput(detections, None if converged is None else converged.astype(bool))
