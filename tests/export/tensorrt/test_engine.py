"""Building engines: with TensorRT-RTX on any machine, and the rest of the logic with a stand-in for TensorRT.

Tests marked `gpu` build, load, read back and run an engine, and compare it with ONNX Runtime.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import FcosError, ModelError, UsageError
from fcos_cli.export.tensorrt.engine import BuildUnavailable, why_not_run
from fcos_cli.export.tensorrt.graph_check import check_graph
from fcos_cli.export.tensorrt.profile import Profile
from fcos_cli.runtime.headers import sidecar_path
from fcos_cli.runtime.tensorrt.layers import precision_of, read_layers
from fcos_cli.runtime.tensorrt.package import Flavour, Log, find_package, parse_version
from fcos_cli.runtime.tensorrt.sidecar import Shape, read_sidecar
from tests import tensorrt_stand_in
from tests.small_onnx import FACTS, PLACES, detector_graph, write_onnx
from tests.tensorrt_stand_in import COMMAND, DataType, LayerType, StandInGpu, build_engine, install

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

RTX = "tensorrt_rtx" if importlib.util.find_spec("tensorrt_rtx") else "tensorrt_rtx_bindings"
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec(RTX) is None,
    reason="TensorRT-RTX is not installed: pip install tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs",
)
CONV_HALF = ((LayerType.CONVOLUTION, DataType.HALF),)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "m.onnx")


# Built with TensorRT-RTX, without a GPU


@needs_rtx
@pytest.mark.parametrize("free", [True, False], ids=["any size", "fixed size"])
@pytest.mark.parametrize(
    ("precision", "network"),
    [("fp32", {"fp32": 2}), ("fp16", {"fp16": 2}), ("int8", {"int8": 1, "fp32": 1})],
)
def test_an_engine_is_built_without_a_gpu_with_its_facts_in_a_json_file(
    tmp_path: Path, precision: str, network: dict[str, int], free: bool
) -> None:
    said: list[str] = []
    onnx_file = write_onnx(tmp_path / "m.onnx", precision=precision, free=free)
    record = build_engine(onnx_file, tmp_path / "m.engine", flavour="trt-rtx", say=said.append)
    facts, read = read_sidecar(tmp_path / "m.engine")
    assert read == record
    assert (record.flavour, record.precision, record.network) == ("trt-rtx", precision, network)
    assert record.max == (8 if free else 1, 64, 64)
    assert (tmp_path / "m.engine").stat().st_size > 10_000
    assert facts.classes == FACTS.classes
    assert record.outputs == ("boxes", "scores", "classes", "counts")
    assert facts.verified is False, "a verified ONNX file does not make the engine verified"
    assert precision in said[-1]


@needs_rtx
@pytest.mark.parametrize("requested", [("sm75",), ("8.6", "SM89"), ("80", "8.6", "8.9", "12.0", "sm_121")])
def test_an_engine_for_chosen_compute_capabilities(tmp_path: Path, graph: Path, requested: tuple[str, ...]) -> None:
    record = build_engine(graph, tmp_path / "m.engine", flavour="trt-rtx", compute_capabilities=requested)
    assert record.compute_capabilities == {
        1: ("7.5",),
        2: ("8.6", "8.9"),
        5: ("8.0", "8.6", "8.9", "12.0", "12.1"),
    }.get(len(requested))


@needs_rtx
@pytest.mark.slow
def test_a_traced_detector_with_decode_and_nms_is_built(tmp_path: Path) -> None:
    from fcos_cli.export.onnx import finalize, trace, write
    from fcos_cli.export.options import ExportOptions
    from fcos_cli.runtime.graph_io import output_names
    from fcos_cli.runtime.pytorch import facts_of
    from tests.tiny import tiny_artifact

    artifact = tiny_artifact(geometry=ResizeRule("shortest", (160, 256)).to_json())
    options = ExportOptions(format="trt-rtx", precision="fp16", nms="tensor")
    facts = options.apply(facts_of(artifact))
    proto = finalize(trace(artifact, facts, options), outputs=output_names("tensor"))
    write(proto, tmp_path / "m.onnx", facts)
    record = build_engine(
        tmp_path / "m.onnx", tmp_path / "m.engine", flavour="trt-rtx", compute_capabilities=("7.5", "8.9")
    )
    assert set(record.network) == {"fp16"}, "every convolution in fp16"
    assert (record.min, record.max) == (Shape(1, 160, 160), Shape(8, 256, 256))


@needs_rtx
def test_a_build_error_quotes_the_builder(tmp_path: Path) -> None:
    model = detector_graph()
    # TensorRT-RTX has no fp32 matrix product for Turing
    model.graph.node.extend(
        [
            helper.make_node("MatMul", ["flat", "sides"], ["product"], "the_product"),
            helper.make_node("ReduceMax", ["product"], ["most"], "most", keepdims=0),
            helper.make_node("Add", ["scores", "most"], ["scores_more"], "more"),
        ]
    )
    model.graph.output[1].name = "scores_more"
    onnx.helper.set_model_props(model, FACTS.to_metadata())
    for entry in model.graph.node:  # the output keeps its name
        for names in (entry.input, entry.output):
            for index, name in enumerate(names):
                names[index] = {"scores": "scores_less", "scores_more": "scores"}.get(name, name)
    model.graph.output[1].name = "scores"
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"the_product.*FP32 GEMM is not supported"):
        build_engine(tmp_path / "m.onnx", tmp_path / "m.engine", flavour="trt-rtx", compute_capabilities=("7.5",))
    assert not (tmp_path / "m.engine").exists()
    assert not sidecar_path(tmp_path / "m.engine").exists()


@needs_rtx
def test_an_unknown_compute_capability(tmp_path: Path, graph: Path) -> None:
    with pytest.raises(UsageError, match=r"compute capability 9\.0") as caught:
        build_engine(graph, tmp_path / "m.engine", flavour="trt-rtx", compute_capabilities=("9.0",))
    assert "8.6, 8.9" in str(caught.value.remedy)


@needs_rtx
def test_every_member_of_the_stand_in_exists_in_tensorrt() -> None:
    real = find_package("trt-rtx").module
    stand_in = tensorrt_stand_in.module_of(tensorrt_stand_in.World("trt-rtx", "1.7"))
    names = [name for name in vars(stand_in) if not name.startswith("__")]
    names += [
        "IRuntimeConfig",
        "INetworkDefinition",
        "ITimingCache",
        "IOptimizationProfile",
        "ParserError",
        "EngineInspector",
    ]
    pairs = {name: name for name in (*names, "IExecutionContext")} | {"Config": "IBuilderConfig"}
    own = {"world", "plan", "content", "shapes", "layers", "flags", "capabilities", "workspace", "profiles"}
    classes = {name: getattr(stand_in, name, None) or getattr(tensorrt_stand_in, name) for name in pairs}
    missing = [
        f"{real_name}.{member}"
        for name, real_name in pairs.items()
        for base in classes[name].__mro__[:-1]
        if base.__module__ == tensorrt_stand_in.__name__
        for member in vars(base)
        if not member.startswith("_") and member not in own and not hasattr(getattr(real, real_name), member)
    ]
    assert missing == []


# Every version, with the stand-in


@pytest.mark.parametrize(
    ("flavour", "version", "flag"), [("trt", "10.13.2.6", 2), ("trt", "11.4.0", 1), ("trt-rtx", "1.7.1.116", 1)]
)
def test_networks_are_strongly_typed_in_every_version(
    tmp_path: Path, graph: Path, monkeypatch: pytest.MonkeyPatch, flavour: str, version: str, flag: int
) -> None:
    world = install(monkeypatch, flavour, version, gpu=StandInGpu())
    record = build_engine(graph, tmp_path / "m.engine", flavour=flavour, workspace_mb=64)
    assert world.network_flags == [flag]
    config = world.configs[0]
    assert config.flags == set(), "no TF32"
    assert config.workspace == 64 << 20
    assert config.profiles[0].shapes == [[1, 3, 64, 64], [1, 3, 64, 64], [8, 3, 64, 64]]
    assert (record.version, record.gpu, record.compute_capability) == (version, "NVIDIA Test 1", "8.9")
    assert (record.layers, record.body, record.unread) == ({"fp32": 1}, {"fp32": 1}, None)


def test_a_graph_of_fixed_size_needs_no_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = install(monkeypatch, "trt", "11.4.0", gpu=StandInGpu())
    onnx_file = write_onnx(tmp_path / "m.onnx", free=False, batch=2)
    record = build_engine(onnx_file, tmp_path / "m.engine", flavour="trt")
    assert world.configs[0].profiles == []
    assert record.min == record.max == (2, 64, 64)


def test_the_json_beside_the_engine(tmp_path: Path, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "trt", "10.13.2.6", gpu=StandInGpu())
    record = build_engine(graph, tmp_path / "m.engine", flavour="trt")
    content = json.loads((tmp_path / "m.engine.json").read_text())
    assert content["schema_version"] == 1
    assert json.loads(content["facts"]["verified"]) is False
    assert content["engine"]["opt"] == [1, 64, 64]
    content["engine"]["tf32"] = False  # as earlier versions wrote
    (tmp_path / "m.engine.json").write_text(json.dumps(content))
    assert read_sidecar(tmp_path / "m.engine")[1] == record


def test_an_fp16_engine_without_fp16_layers_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_file = write_onnx(tmp_path / "m.onnx", precision="fp16")
    install(monkeypatch, "trt", "10.13.2.6", gpu=StandInGpu())  # its network has a convolution in fp32
    with pytest.raises(ModelError, match=r"fp16 was requested, but the network's .* fp32 \(1\)"):
        build_engine(onnx_file, tmp_path / "m.engine", flavour="trt")
    full = {"Name": "conv1", "LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Row major linear FP32"}]}
    cast = {"Name": "cast_in", "LayerType": "Reformat", "Outputs": [{"Format/Datatype": "Half"}]}
    install(monkeypatch, "trt", "10.13.2.6", gpu=StandInGpu(), layers=CONV_HALF, inspector={"Layers": [cast, full]})
    with pytest.raises(ModelError, match=r"fp16 was requested, but the engine's .* fp32 \(1\)"):
        build_engine(onnx_file, tmp_path / "m.engine", flavour="trt")
    assert not (tmp_path / "m.engine").exists()


@pytest.mark.parametrize(
    ("conv", "body"),
    [
        ({"Weights": {"Type": "Half"}}, {"fp16": 1}),
        ({"Weights": {"Type": "Float"}}, {"other": 1}),  # the kernel may compute in another type
    ],
)
def test_an_engine_for_dynamic_shapes_reports_no_types_of_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conv: dict, body: dict[str, int]
) -> None:
    onnx_file = write_onnx(tmp_path / "m.onnx", precision="fp16")
    hidden = [{"Format/Datatype": "N/A due to dynamic shapes"}]
    layers = [
        {"Name": "conv1", "LayerType": "CaskConvolution", "Inputs": hidden, "Outputs": hidden, **conv},
        {"Name": "__myl_Topk_0", "LayerType": "kgen", "Inputs": [{"Format/Datatype": "Float"}]},
    ]
    install(monkeypatch, "trt", "10.13.2.6", gpu=StandInGpu(), layers=CONV_HALF, inspector={"Layers": layers})
    record = build_engine(onnx_file, tmp_path / "m.engine", flavour="trt")
    assert (record.body, record.precision_used) == (body, "fp16")


@pytest.mark.parametrize(
    ("inspector", "reason"),
    [({"Layers": ["conv1"]}, "only names"), ({}, "no layers"), ({"Layers": [{"Name": "conv1"}]}, "no types")],
)
def test_an_engine_whose_layers_cannot_be_read_records_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inspector: object, reason: str
) -> None:
    onnx_file = write_onnx(tmp_path / "m.onnx", precision="fp16")
    install(monkeypatch, "trt", "11.4.0", gpu=StandInGpu(), layers=CONV_HALF, inspector=inspector)
    record = build_engine(onnx_file, tmp_path / "m.engine", flavour="trt")
    assert record.layers is None
    assert reason in str(record.unread)
    assert record.precision_used == "fp16", "from the types of the network"


def test_layers_of_an_engine_for_another_gpu_stay_unread(
    tmp_path: Path, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = install(monkeypatch, "trt-rtx", "1.7.1", gpu=StandInGpu((7, 5)))
    monkeypatch.setattr("tests.tensorrt_stand_in.Runtime.deserialize_cuda_engine", lambda self, plan: None)
    record = build_engine(graph, tmp_path / "m.engine", flavour="trt-rtx", compute_capabilities=("8.6",))
    assert world.configs[0].capabilities == {0: tensorrt_stand_in.ComputeCapability.SM86}
    assert "cannot load" in str(record.unread)
    assert "compute capability 8.6" in str(why_not_run(record, tmp_path / "m.engine"))
    record = build_engine(graph, tmp_path / "m.engine", flavour="trt-rtx", compute_capabilities=("7.5",))
    assert "cannot load this engine" in str(why_not_run(record, tmp_path / "m.engine"))
    install(monkeypatch, "trt", "11.4.0", gpu=StandInGpu())
    with pytest.raises(ModelError, match="cannot load"):
        build_engine(graph, tmp_path / "n.engine", flavour="trt")


def test_errors_quote_the_parser_and_the_builder(tmp_path: Path, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = (("TopK", "topk_1", "K exceeds\nthe maximum"), ("Foo", "foo", "no"))
    install(monkeypatch, "trt", "10.0.1", gpu=StandInGpu(), parse_errors=errors)
    with pytest.raises(ModelError, match=r"TensorRT 10.0.1 .* at TopK 'topk_1': K exceeds the maximum \(and 1 more\)"):
        build_engine(graph, tmp_path / "m.engine", flavour="trt")
    install(monkeypatch, "trt", "10.0.1", gpu=StandInGpu(), build_error="Could not find any implementation for node x")
    with pytest.raises(ModelError, match="any implementation for node x"):
        build_engine(graph, tmp_path / "m.engine", flavour="trt")
    install(monkeypatch, "trt", "10.0.1", gpu=StandInGpu(), no_builder=True)
    with pytest.raises(FcosError, match="CUDA initialization failure"):
        build_engine(graph, tmp_path / "m.engine", flavour="trt")


def test_the_timing_cache_is_used_and_written(tmp_path: Path, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, said = tmp_path / "timing.cache", []
    install(monkeypatch, "trt", "11.4.0", gpu=StandInGpu())
    build_engine(graph, tmp_path / "m.engine", flavour="trt", timing_cache=cache, say=said.append)
    assert cache.read_bytes() == b"valid and more"
    assert not any("empty one" in line for line in said)
    cache.write_bytes(b"from another GPU")
    build_engine(graph, tmp_path / "m.engine", flavour="trt", timing_cache=cache, say=said.append)
    assert any("starting with an empty one" in line for line in said)
    assert cache.read_bytes() == b"valid and more"
    install(monkeypatch, "trt-rtx", "1.7.1", gpu=None)
    cache.unlink()
    build_engine(graph, tmp_path / "m.engine", flavour="trt-rtx", timing_cache=cache, say=said.append)
    assert any("neither read nor written" in line for line in said)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("requested", "flavour", "message"),
    [
        (("8.6",), "trt", "chosen compute capabilities"),
        (("8.6", "sm86"), "trt-rtx", "invalid list"),
        (("current",), "trt-rtx", "invalid list"),
        (("5",), "trt-rtx", "compute capability 5"),
    ],
)
def test_invalid_compute_capabilities(
    tmp_path: Path, graph: Path, monkeypatch: pytest.MonkeyPatch, requested: tuple[str, ...], flavour: str, message: str
) -> None:
    install(monkeypatch, flavour, "1.7.1", gpu=None)
    with pytest.raises(UsageError, match=message):
        build_engine(graph, tmp_path / "m.engine", flavour=flavour, compute_capabilities=requested)


def test_current_means_the_capability_of_this_gpu(tmp_path: Path, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "trt-rtx", "1.7.1", gpu=StandInGpu((12, 0)))
    record = build_engine(graph, tmp_path / "m.engine", flavour="trt-rtx", compute_capabilities=("current",))
    assert (record.compute_capabilities, record.compute_capability) == (("current",), "12.0")


def test_a_machine_that_cannot_build_reports_the_reason_and_a_command_for_another_one(
    tmp_path: Path, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "trt", "11.4.0", gpu=None)
    with pytest.raises(BuildUnavailable, match="on the GPU that will run it") as caught:
        build_engine(graph, tmp_path / "m.engine", flavour="trt")
    assert caught.value.remedy == f"on another machine, run: {COMMAND}"
    assert caught.value.exit_code == 1
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(
        BuildUnavailable, match=r"TensorRT-RTX cannot be used here: it is not installed .*trt-rtx"
    ) as caught:
        build_engine(graph, tmp_path / "m.engine", flavour="trt-rtx")
    assert caught.value.remedy == f"on another machine, run: {COMMAND}"


def test_too_old_versions_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "trt", "8.6.1.post1", gpu=None)
    with pytest.raises(ModelError, match=r"8\.6\.1\.post1 is too old"):
        find_package("trt")
    assert parse_version("8.6.1.post1") == (8, 6, 1)
    assert parse_version("11.4.0.12+cuda13") == (11, 4, 0, 12)


def test_the_log_keeps_the_last_messages() -> None:
    log = Log(keep=3)
    for number in range(5):
        log.add("WARNING", str(number))
    mark = log.mark()
    assert log.warnings(0) == ["2", "3", "4"]
    log.add("INFO", "no")
    log.add("VERBOSE", "no")
    log.add("ERROR", "one\ntwo")
    log.add("WARNING", "hm")
    assert log.errors(mark) == "one two"
    assert log.warnings(mark) == ["one\ntwo", "hm"]
    assert Log().errors(0) == "no reason given"


# Profiles


@pytest.mark.parametrize(
    ("rule", "dimensions", "expected"),
    [
        (ResizeRule("letterbox", (320, 416)), (None, None, None), [(1, 320, 416), (1, 320, 416), (8, 320, 416)]),
        (ResizeRule("shortest", (800, 1333)), (None, None, None), [(1, 160, 160), (1, 800, 1088), (8, 1344, 1344)]),
        (ResizeRule("shortest", (800, 1333)), (2, None, None), [(2, 160, 160), (2, 800, 1088), (2, 1344, 1344)]),
        (ResizeRule("shortest", (64, 100)), (None, None, None), [(1, 160, 160), (1, 160, 160), (8, 160, 160)]),
        (ResizeRule("letterbox", (640, 640)), (1, 640, 640), [(1, 640, 640)] * 3),
    ],
)
def test_the_default_profile_covers_usual_images(
    rule: ResizeRule, dimensions: tuple[int | None, ...], expected: list[tuple[int, ...]]
) -> None:
    profile = Profile.default(rule, dimensions)
    assert [profile.min, profile.opt, profile.max] == expected
    profile.check(dimensions, rule)


@pytest.mark.parametrize(
    ("profile", "dimensions", "message"),
    [
        (((2, 64, 64), (1, 64, 64), (8, 64, 64)), (None, None, None), "batch has min 2, opt 1"),
        (((0, 64, 64), (1, 64, 64), (8, 64, 64)), (None, None, None), "use 1 <= min"),
        (((1, 64, 64), (1, 64, 64), (8, 64, 64)), (1, None, None), "fixed batch of 1, but the profile has 1 to 8"),
        (((1, 96, 64), (1, 96, 64), (8, 128, 64)), (None, None, None), "images are 64 x 64"),
    ],
)
def test_invalid_profiles(
    tmp_path: Path, profile: tuple[tuple[int, ...], ...], dimensions: tuple[int | None, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Profile(*(Shape(*shape) for shape in profile)).check(dimensions, FACTS.resize)


def test_a_profile_that_fits_images_of_no_shape() -> None:
    rule = ResizeRule("shortest", (800, 1333))
    for low, high in ((640, 640), (320, 768), (832, 1344)):
        profile = Profile(Shape(1, low, low), Shape(1, low, low), Shape(1, high, high))
        with pytest.raises(UsageError, match="no usual image shape fits: 4:3 images are 800 x 1088 pixels, outside"):
            profile.check((None, None, None), rule)


@pytest.mark.parametrize("shape", [(800, 1088), (1088, 800), (768, 1344), (800, 800)])
def test_a_profile_for_images_of_one_shape(shape: tuple[int, int]) -> None:
    only = Shape(1, *shape)
    Profile(only, only, only).check((None, None, None), ResizeRule("shortest", (800, 1333)))


# Graphs


def graph_of(path: Path, nodes: list, **constants: np.ndarray) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", onnx.TensorProto.FLOAT, [1, 5000])],
        [value("y", onnx.TensorProto.FLOAT, [1, 5000])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph), str(path))
    return path


def check(path: Path, flavour: Flavour) -> None:
    check_graph(onnx.load(path), path, flavour)


def test_topk_has_a_limit(tmp_path: Path) -> None:
    def topk(count: int) -> Path:
        return graph_of(
            tmp_path / "m.onnx", [helper.make_node("TopK", ["x", "k"], ["y", "i"], "t")], k=np.array([count])
        )

    check(topk(3840), "trt-rtx")
    with pytest.raises(ModelError, match="cannot build TopK 't': it selects 3841 values, but the limit is 3840"):
        check(topk(3841), "trt")


def test_trt_rtx_has_no_non_max_suppression(tmp_path: Path) -> None:
    path = graph_of(tmp_path / "m.onnx", [helper.make_node("NonMaxSuppression", ["x", "x"], ["y"], "n")])
    check(path, "trt")
    with pytest.raises(ModelError, match="TensorRT-RTX cannot build NonMaxSuppression 'n'") as caught:
        check(path, "trt-rtx")
    assert "--format trt-rtx" in str(caught.value.remedy)


def test_custom_operators_are_found_inside_loops(tmp_path: Path) -> None:
    body = helper.make_graph([helper.make_node("Gelu", ["c"], ["d"], "inner", domain="com.microsoft")], "b", [], [])
    path = graph_of(tmp_path / "m.onnx", [helper.make_node("Loop", ["n", "c", "x"], ["y"], "loop", body=body)])
    with pytest.raises(ModelError, match=r"Gelu 'inner': it belongs to the domain 'com\.microsoft'"):
        check(path, "trt")


@pytest.mark.parametrize(
    ("operation", "stored", "point", "message"),
    [
        ("QuantizeLinear", None, np.uint8(0), "quantizes to uint8"),
        ("QuantizeLinear", None, np.int8(3), "zero point is not 0"),
        ("QuantizeLinear", None, None, "without a zero point"),
        ("DequantizeLinear", np.zeros(5, np.int32), np.int32(0), "quantizes to int32"),
        ("QuantizeLinear", None, np.int8(0), None),
        ("DequantizeLinear", np.zeros(5, np.int8), np.int8(0), None),
    ],
)
def test_only_symmetric_int8_is_computed_as_written(
    tmp_path: Path, operation: str, stored: np.ndarray | None, point: np.ndarray | None, message: str | None
) -> None:
    constants = {"s": np.float32(0.1)}
    constants |= {} if stored is None else {"q": stored}
    constants |= {} if point is None else {"z": point}
    inputs = ["x" if stored is None else "q", "s", *(() if point is None else ("z",))]
    path = graph_of(tmp_path / "m.onnx", [helper.make_node(operation, inputs, ["y"], "node")], **constants)
    if message is None:
        check(path, "trt-rtx")
        return
    with pytest.raises(ModelError, match=message) as caught:
        check(path, "trt")
    assert "--target tensorrt" in str(caught.value.remedy)


def test_files_that_are_not_exported_detectors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lacks the fact"):
        build_engine(graph_of(tmp_path / "a.onnx", []), tmp_path / "a.engine", flavour="trt-rtx")
    (tmp_path / "b.onnx").write_bytes(b"what is this")
    with pytest.raises(ModelError, match="not a readable"):
        build_engine(tmp_path / "b.onnx", tmp_path / "b.engine", flavour="trt-rtx")
    with pytest.raises(ModelError, match="cannot be read"):
        build_engine(tmp_path / "c.onnx", tmp_path / "c.engine", flavour="trt-rtx")
    model = detector_graph()
    onnx.helper.set_model_props(model, FACTS.to_metadata())
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, str(tmp_path / "d.onnx"))
    with pytest.raises(ModelError, match="not uint8"):
        build_engine(tmp_path / "d.onnx", tmp_path / "d.engine", flavour="trt-rtx")


# Layers reported by the inspector


@pytest.mark.parametrize(
    ("inputs", "outputs", "precision"),
    [
        (["Row major linear FP32"], ["Row major linear FP32"], "fp32"),
        (["Channel major FP16 format where channel % 8 == 0"], ["Half"], "fp16"),
        (["Float"], ["Half"], "fp16"),  # a cast merged into a convolution
        (["Half"], ["Float"], "fp16"),
        (["BFloat16"], ["Float"], "bf16"),
        (["Thirty-two wide channel vectorized row major Int8 format"], ["Half"], "int8"),
        (["Half"], ["Int8"], "fp16"),  # quantizes its output
        (["Row major linear UInt8 format"], ["Half"], "fp16"),
        (["Int64"], ["Bool"], "other"),
        (["FP8"], ["Half"], "fp8"),
        ([], ["Float"], "fp32"),
    ],
)
def test_the_precision_of_a_layer(inputs: list[str], outputs: list[str], precision: str) -> None:
    layer = {"Inputs": [{"Format/Datatype": text} for text in inputs], "Outputs": [{"Datatype": t} for t in outputs]}
    assert precision_of(layer) == precision


@pytest.mark.parametrize(
    ("tactic", "weights", "precision"),
    [
        ("sm80_xmma_fprop_implicit_gemm_indexed_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x32", "Float", "fp16"),
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs", "Int8", "int8"),
        ("sm80_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "Float", "bf16"),
        ("sm80_xmma_fprop_implicit_gemm_indexed_f32f32_f32f32_f32_nhwckrsc_nhwc", "Float", "fp32"),
        ("sm80_xmma_fprop_implicit_gemm_indexed_f32f32_tf32f32_f32_nhwckrsc_nhwc", "Float", "other"),
        ("0x0000000000000000", "Half", "fp16"),
        ("", "Int8", "int8"),
        ("", "Float", "other"),
        ("", None, "other"),
    ],
)
def test_the_precision_of_a_layer_with_dynamic_shapes(tactic: str, weights: str | None, precision: str) -> None:
    hidden = [{"Format/Datatype": "N/A due to dynamic shapes"}]
    layer = {"Inputs": hidden, "Outputs": hidden, "TacticName": tactic}
    assert precision_of(layer | ({} if weights is None else {"Weights": {"Type": weights, "Count": 9}})) == precision


def test_layers_with_weights_are_recognized_by_kind_or_onnx_node() -> None:
    half, full = [{"Format/Datatype": "Half"}], [{"Format/Datatype": "Float"}]
    layers = [
        {"Name": "conv1 + relu1", "LayerType": "CaskConvolution", "Inputs": half, "Outputs": half},
        {
            "Name": "__myl_Fused_0",
            "LayerType": "kgen",
            "Inputs": half,
            "Metadata": "[ONNX Layer: r]\x1e[ONNX Layer: conv2]",
        },
        {"Name": "product_myl0_7", "LayerType": "gemm", "Inputs": full, "Outputs": full},
        {"Name": "topk", "LayerType": "TopK", "Inputs": full, "Outputs": full},
        {"Name": "Reformatting CopyNode for Input Tensor 0 to conv1", "LayerType": "Reformat", "Inputs": full},
        {"Name": "w", "LayerType": "Constant", "Outputs": full, "Metadata": "[ONNX Layer: conv2]"},
    ]
    counts = read_layers(json.dumps({"Layers": layers, "Bindings": ["images"]}), weighted_nodes={"conv1", "conv2"})
    assert counts.body == {"fp16": 2, "fp32": 1}
    assert counts.all == {"fp16": 2, "fp32": 4}


# With a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("flavour", ["trt", "trt-rtx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_matches_onnx_runtime(tmp_path: Path, flavour: str, precision: str) -> None:
    import torch

    from fcos_cli.errors import MissingExtra
    from fcos_cli.runtime.onnxruntime import OnnxRuntimeDetector
    from fcos_cli.runtime.tensorrt.detector import TensorRtDetector

    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    try:
        find_package(flavour)
    except MissingExtra as error:
        pytest.skip(error.what)
    onnx_file = write_onnx(tmp_path / "m.onnx", precision=precision)
    record = build_engine(onnx_file, tmp_path / "m.engine", flavour=flavour)
    assert record.body is None or precision in record.body
    images = np.random.default_rng(0).integers(0, 256, (11, 3, 64, 64), np.uint8)
    engine = TensorRtDetector.open(tmp_path / "m.engine", name="e")(images)
    reference = OnnxRuntimeDetector.open(onnx_file, name="o", device="cpu")(images)
    assert engine.boxes.shape == (11, PLACES, 4)
    tolerance = {"fp32": 1e-4, "fp16": 2e-2, "int8": 5e-2}[precision]
    np.testing.assert_allclose(engine.scores, reference.scores, atol=tolerance)
    if precision == "fp32":
        np.testing.assert_array_equal(engine.classes, reference.classes)
        np.testing.assert_allclose(engine.boxes, reference.boxes, rtol=1e-3, atol=1e-3)
