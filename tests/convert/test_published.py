"""Files of AdelaiDet's FCOS_RT and the authors' MobileNetV2: their layouts, and the outputs of whole networks.

Layouts and outputs were worked out by rule, outside the program: `vectors/published.py` and `vectors/plain.py`.
"""

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fcos_cli.convert.run import Converted, convert
from fcos_cli.errors import ModelError
from fcos_cli.model.artifact import load, save
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.presets import PRESETS, preset_name
from fcos_cli.runtime.headers import read_header
from tests.cli_runner import Fcos
from tests.convert.foreign import State, pth

VECTORS = Path(__file__).parent.parent / "vectors"
sys.path.insert(0, str(VECTORS))  # its scripts are not a package

from published import mobilenet_v2, realtime  # noqa: E402
from seeded import seeded_picture, seeded_state  # noqa: E402

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "cat.jpg"
VALUES = load_file(VECTORS / "realtime.safetensors")
NARROW = {"channels": 32, "convs": 2}

# config: (preset, values of ModelConfig)
DLA = {"backbone": "dla34", "channels": 256, "strides": (8, 16, 32), "stride_in_1x1": False, "ranges": (64.0, 128.0)}
R50 = {**DLA, "backbone": "resnet50", "stride_in_1x1": True}
MOBILENET = {"backbone": "mobilenetv2_100", "strides": (8, 16, 32, 64, 128), "convs": 4, "norm": "group"}
PUBLISHED = {
    "MS_DLA_34_4x_syncbn_shared_towers": ("adelaidet", {**DLA, "shared_convs": 4, "convs": 0, "norm": "group"}),
    "MS_DLA_34_4x_syncbn_shared_towers_bn_head": (
        "adelaidet", {**DLA, "shared_convs": 4, "convs": 0, "norm": "batch-per-level"},
    ),
    "MS_DLA_34_4x_syncbn": ("adelaidet", {**DLA, "shared_convs": 0, "convs": 4, "norm": "group"}),
    "MS_DLA_34_4x_syncbn_bn_head": ("adelaidet", {**DLA, "shared_convs": 0, "convs": 4, "norm": "batch-per-level"}),
    "MS_R_50_4x_syncbn": ("adelaidet", {**R50, "convs": 4, "norm": "group"}),
    "MS_R_50_4x_syncbn_bn_head": ("adelaidet", {**R50, "convs": 4, "norm": "batch-per-level"}),
    "fcos_syncbn_bs32_c128_MNV2_FPN_1x": ("fcos-v1", {**MOBILENET, "channels": 128}),
    "fcos_syncbn_bs32_MNV2_FPN_1x": ("fcos-v1", {**MOBILENET, "channels": 256}),
    "fcos_bn_bs16_MNV2_FPN_1x": ("fcos-v1", {**MOBILENET, "channels": 256}),
}  # fmt: skip

NETWORKS: dict[str, tuple[dict[str, list[int]], str]] = {
    "dla34-shared-bn": (realtime("DLA34", norm="SyncBN", shared=True, **NARROW), "adelaidet"),
    "dla34": (realtime("DLA34", norm="GN", shared=False, **NARROW), "adelaidet"),
    "r18-bn": (realtime("R18", norm="SyncBN", shared=False, **NARROW), "adelaidet"),
    "r18-none": (realtime("R18", norm="none", shared=False, **NARROW), "adelaidet"),
    "mobilenetv2": (mobilenet_v2(channels=64, convs=2), "fcos-v1"),
}
"""As in `vectors/make_published.py`, which recorded their outputs; and the preset."""


def layout(name: str) -> State:
    """The tensors of a published file, without memory."""
    shapes = json.loads((VECTORS / "published" / f"{name}.json").read_text(encoding="utf-8"))
    return {key: torch.zeros((), dtype=dtype_of(key)).expand(shape) for key, shape in shapes.items()}


def dtype_of(key: str) -> torch.dtype:
    return torch.int64 if key.endswith("num_batches_tracked") else torch.float32


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_layout_is_recognized_and_fits(name: str, tmp_path: Path) -> None:
    preset, expected = PUBLISHED[name]
    prefix = "module." if preset == "fcos-v1" else ""
    state = {f"{prefix}{key}": value for key, value in layout(name).items()}
    found = convert(pth(tmp_path / f"{name}.pth", {"model": state, "iteration": 1}), preset=preset)
    config = found.artifact.config
    assert {key: getattr(config, key) for key in expected} == expected
    assert (config.top_from, config.groups, preset_name(config.conventions)) == ("p5", 32, preset)
    assert len(found.artifact.classes) == 80
    realtime = name.startswith("MS_")
    assert found.artifact.geometry["size"] == ([512, 736] if realtime else [800, 1333])
    assert found.artifact.geometry["rounding"] == PRESETS[preset].geometry["rounding"]
    assert any("three levels" in note for note in found.notes) == realtime
    assert any("reversed from BGR" in note for note in found.notes)
    assert not any("epsilon" in note for note in found.notes)  # the norms of all of them have one
    unused = [key for key in state if ".level3.project." in key or ".level4.project." in key]
    assert len(unused) == (2 * 6 if config.backbone == "dla34" else 0)


@pytest.mark.parametrize(
    ("name", "victim"),
    [
        ("MS_DLA_34_4x_syncbn_shared_towers", "proposal_generator.fcos_head.share_tower.3.bias"),
        ("MS_R_50_4x_syncbn_bn_head", "proposal_generator.fcos_head.bbox_tower.4.2.running_mean"),
        ("fcos_bn_bs16_MNV2_FPN_1x", "backbone.body.features.0.1.weight"),
    ],
)
def test_misfitting_tensors_are_listed_by_their_names_in_the_file(name: str, victim: str, tmp_path: Path) -> None:
    state, preset = layout(name), PUBLISHED[name][0]
    value = state.pop(victim)
    with pytest.raises(ModelError, match=": 1 missing") as caught:
        convert(pth(tmp_path / "x.pth", state), preset=preset)
    assert f"{victim} {list(value.shape)}" in str(caught.value.details)
    with pytest.raises(ModelError, match=": 1 missing, 1 unknown") as caught:
        convert(pth(tmp_path / "x.pth", {**state, f"{victim}.more": value}), preset=preset)
    assert f"{victim}.more {list(value.shape)}" in str(caught.value.details)
    with pytest.raises(ModelError, match=": 1 misshapen") as caught:
        convert(pth(tmp_path / "x.pth", {**state, victim: torch.zeros(7)}), preset=preset)
    assert f"{victim} [7], expected {list(value.shape)}" in str(caught.value.details)


def test_a_larger_dla_does_not_fit_and_every_tensor_is_listed(tmp_path: Path) -> None:
    state = layout("MS_DLA_34_4x_syncbn")
    wide = {key: torch.zeros(()).expand([2 * side for side in value.shape]) for key, value in state.items()
            if ".level5." in key and value.ndim == 4}  # fmt: skip
    with pytest.raises(ModelError, match=f"backbone dla34.*: {len(wide)} misshapen") as caught:
        convert(pth(tmp_path / "x.pth", {**state, **wide}), preset="adelaidet")
    assert all(key in str(caught.value.details) for key in wide)


class Network(NamedTuple):
    name: str
    converted: Converted
    model: FCOS


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Network:
    return opened(request.param, tmp_path_factory.mktemp("theirs"))


def opened(name: str, folder: Path) -> Network:
    """Convert a network with weights that follow from its tensors' names, and build it for a normalized picture."""
    keys, preset = NETWORKS[name]
    save_file(seeded_state(keys), folder / "theirs.safetensors")
    found = convert(folder / "theirs.safetensors", preset=preset)
    model = found.artifact.build()
    model.mean.zero_()
    model.std.fill_(1)
    return Network(name, found, model)


def differences(model: FCOS, name: str) -> dict[str, float]:
    """Largest difference from the recorded outputs, relative to the largest of them."""
    with torch.inference_mode():
        cls, ltrb, ctr = model(3 * seeded_picture(64, 64).flip(1)).flat()  # theirs is in BGR order
    ours = {"cls": cls[0, :, ::8], "ltrb": ltrb[0], "ctr": ctr[0]}
    theirs = {part: VALUES[f"{name}.{part}"] for part in ours}
    return {part: float((ours[part] - value).abs().max() / value.abs().max()) for part, value in theirs.items()}


def test_converted_networks_give_the_recorded_outputs(network: Network) -> None:
    assert max(differences(network.model, network.name).values()) <= 1e-5


# What the outputs show: each wrong setting moves one of them by more than 1e-4 of its largest value


def swap(*pairs: tuple[str, str]) -> Callable[[FCOS], None]:
    """Exchange tensors."""

    def change(model: FCOS) -> None:
        state = model.state_dict()
        for one, other in pairs:
            state[one], state[other] = state[other].clone(), state[one].clone()
        model.load_state_dict(state)

    return change


def without_relu6(model: FCOS) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.ReLU())


def without_eps(model: FCOS) -> None:
    for name, buffer in model.backbone.body.named_buffers():
        if name.endswith("running_var"):
            buffer.sub_(1e-5)


def with_rules(**changes: Any) -> Callable[[FCOS], None]:
    def change(model: FCOS) -> None:
        model.head.conventions = replace(model.head.conventions, **changes)

    return change


def in_rgb(model: FCOS) -> None:
    stem = next(module for module in model.backbone.body.modules() if isinstance(module, nn.Conv2d))
    stem.weight.data = stem.weight.data.flip(1)


NORM = "head.shared_tower.1.{}.running_mean"
WRONG: list[tuple[str, str, Callable[[FCOS], None]]] = [
    ("mobilenetv2", "ReLU instead of ReLU6", without_relu6),
    ("mobilenetv2", "a norm without epsilon", without_eps),
    ("mobilenetv2", "relu instead of exp", with_rules(activation="relu")),
    ("mobilenetv2", "centerness on the box tower", with_rules(centerness_on="box")),
    ("mobilenetv2", "red and blue exchanged", in_rgb),
    ("dla34-shared-bn", "the norms of two levels exchanged", swap((NORM.format(0), NORM.format(2)))),
    ("dla34-shared-bn", "no scales", with_rules(scales=False)),
    ("dla34-shared-bn", "distances in pixels", with_rules(stride_normalised=False)),
    ("dla34-shared-bn", "red and blue exchanged", in_rgb),
]  # fmt: skip


@pytest.mark.parametrize("network", ["mobilenetv2", "dla34-shared-bn"], indirect=True)
def test_each_wrong_setting_changes_the_outputs(network: Network) -> None:
    for name, what, change in WRONG:
        if name == network.name:
            wrong = copy.deepcopy(network.model)
            change(wrong)
            assert max(differences(wrong, name).values()) > 1e-4, what


def whole_file(name: str, folder: Path, fcos: Fcos) -> Path:
    """A file of random weights goes through `fcos convert`, `info` and `predict`. Return the model, of small input."""
    keys, preset = NETWORKS[name]
    prefix = "module." if preset == "fcos-v1" else ""
    state = {f"{prefix}{key}": value for key, value in seeded_state(keys).items()}
    stem = next(key for key in state if key.endswith(("base_layer.0.weight", "features.0.0.weight")))
    state[stem] = state[stem] / 40  # pixels are not divided by their standard deviation
    file = pth(folder / "theirs.pth", {"model": state, "iteration": 9})
    converted, model = fcos("convert", file, "--preset", preset), folder / "theirs.safetensors"
    assert converted.code == 0, converted.err
    artifact = load(model)
    save(model, replace(artifact, geometry={**artifact.geometry, "size": [160, 256]}))
    assert artifact.config.backbone in fcos("info", model).err
    assert boxes(fcos, model)
    return model


def boxes(fcos: Fcos, model: Path) -> list[list[float]]:
    """What `fcos predict` finds in a photo: boxes and scores."""
    found = fcos("predict", PHOTO, "--model", model, "--json")
    assert found.code == 0, found.err
    (picture,) = found.document["results"]
    return [[*one["box"], one["score"]] for one in picture["detections"]]


def test_a_whole_file_of_mobilenet_finds_objects(tmp_path: Path, fcos: Fcos) -> None:
    whole_file("mobilenetv2", tmp_path, fcos)


@pytest.mark.slow
def test_a_whole_file_of_dla_is_exported_with_its_proof(tmp_path: Path, fcos: Fcos) -> None:
    """Three levels with a norm each, a tower shared by both branches, and a backbone that takes multiples of 32."""
    model = whole_file("dla34-shared-bn", tmp_path, fcos)
    exported = fcos("export", model, "--format", "onnx", "--out", tmp_path / "model.onnx")
    assert exported.code == 0, exported.err
    header = read_header(tmp_path / "model.onnx")
    assert header.facts.verified is True
    assert header.facts.model["strides"] == [8, 16, 32]
    ours, theirs = boxes(fcos, model), boxes(fcos, tmp_path / "model.onnx")
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, atol=0.05)
