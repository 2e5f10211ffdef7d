"""Checkpoints with deformable convolutions: the published layouts, what does not fit, and the outputs by rule.

Names, shapes and outputs come from `vectors/deformable.py`, which is written from each zoo's configs.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fcos_cli.convert import backbones
from fcos_cli.convert.families import FAMILIES
from fcos_cli.convert.run import Converted, convert
from fcos_cli.convert.torchvision import to_torchvision
from fcos_cli.errors import ModelError
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.networks.deformable import DeformConv2d
from tests.convert.foreign import State, hollow, pth
from tests.small_resnets import BY_SHAPE

VECTORS = Path(__file__).parent.parent / "vectors"
sys.path.insert(0, str(VECTORS))  # its scripts are not a package

from deformable import PUBLISHED, R50, SMALL, Network, keys  # noqa: E402
from seeded import seeded_picture, seeded_state  # noqa: E402

PRESETS = {"fcos": "fcos-imprv", "adelaidet": "adelaidet", "mmdet": "mmdet-tricks"}
MMDET = "fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco"
SAID = {  # what the configs state
    "fcos_imprv_dcnv2_R_50_FPN_1x": ("resnet50", (2, 3, 4), True, (1.0, 1.0, 1.0)),
    "fcos_imprv_dcnv2_R_101_FPN_2x": ("resnet101", (2, 3, 4), True, (1.0, 1.0, 1.0)),
    "fcos_imprv_dcnv2_X_101_32x8d_FPN_2x": ("resnext101_32x8d", (3, 4), False, (1.0, 1.0, 1.0)),
    "fcos_imprv_dcnv2_X_101_64x4d_FPN_2x": ("resnext101_64x4d", (3, 4), False, (1.0, 1.0, 1.0)),
    "MS_X_101_32x8d_2x_dcnv2": ("resnext101_32x8d", (3, 4), False, (58.395, 57.12, 57.375)),
    MMDET: ("resnet50", (2, 3, 4), True, (1.0, 1.0, 1.0)),
}


def shapes_of(name: str) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads((VECTORS / "keys" / f"{name}.json").read_text(encoding="utf-8"))
    return shapes


def hollow_state(shapes: dict[str, list[int]]) -> State:
    return hollow({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small ResNets are backbones that `convert` knows."""
    for shape, info in BY_SHAPE.items():
        monkeypatch.setitem(backbones._BACKBONES, shape, info)


@pytest.fixture
def read(tmp_path: Path, small: None) -> Callable[..., Converted]:
    def run(state: State, preset: str = "fcos-imprv") -> Converted:
        number = len(list(tmp_path.iterdir()))  # the tensors of an earlier file may still be mapped
        return convert(pth(tmp_path / f"theirs{number}.pth", {"model": state}), preset=preset)

    return run


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layout_is_recognized_and_fits_wholly(name: str, read: Callable[..., Converted]) -> None:
    shapes, net = shapes_of(name), PUBLISHED[name]
    assert shapes == keys(net)
    found = read(hollow_state(shapes), preset=PRESETS[net.zoo])
    config = found.artifact.config
    said = (config.backbone, config.deformable_stages, config.stride_in_1x1, config.std)
    assert said == SAID[name]
    assert (config.deformable_tower, config.channels, config.convs) == (True, 256, 4)
    with torch.device("meta"):
        model = FCOS(config, classes=80)
    assert {key: value.shape for key, value in model.state_dict().items()} == {
        key: value.shape for key, value in found.artifact.weights.items()
    }
    moved = sum(isinstance(module, DeformConv2d) for module in model.modules())
    assert moved == sum(net.blocks[stage - 1] for stage in net.deformable) + 2
    assert "and the last of each tower" in "".join(found.notes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_name_survives_a_round_trip(name: str) -> None:
    shapes = {key: shape for key, shape in shapes_of(name).items() if not key.endswith("num_batches_tracked")}
    names = FAMILIES[PUBLISHED[name].zoo].names
    found = {names.to_native(key): key for key in shapes}
    assert len(found) == len(shapes)
    assert None not in found
    assert names.to_all_foreign(key for key in found if key) == found


@pytest.mark.parametrize(("zoo", "table"), [("fcos", "fcos"), ("adelaidet", "adelaidet"), ("mmdet", "mmdet-tricks")])
def test_rules_without_deformable_layers_give_the_tables_of_the_plain_models(zoo: str, table: str) -> None:
    assert keys(Network(zoo, R50)) == json.loads((VECTORS / f"keys_{table}.json").read_text(encoding="utf-8"))


def converted(name: str, folder: Path) -> Converted:
    net = (SMALL | PUBLISHED)[name]
    save_file(seeded_state(keys(net)), folder / "theirs.safetensors")
    return convert(folder / "theirs.safetensors", preset=PRESETS[net.zoo])


def outputs(model: FCOS) -> tuple[Tensor, Tensor, Tensor]:
    """As in the vectors: every eighth class, for an image that is normalized already and in BGR order; in float64."""
    model.double().mean.zero_()
    model.std.fill_(1)
    with torch.inference_mode():
        cls, ltrb, ctr = model(seeded_picture(64, 64).flip(1)).flat()
    return cls[0, :, ::8], ltrb[0], ctr[0]


def expected(name: str) -> list[Tensor]:
    vectors = load_file(VECTORS / "deformable.safetensors")
    return [vectors[f"{name}.{part}"] for part in ("cls", "ltrb", "ctr")]


def error(found: tuple[Tensor, ...], wanted: list[Tensor]) -> float:
    """Largest difference, relative to the largest value of each part."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", SMALL)
def test_small_networks_give_the_outputs_by_rule(name: str, tmp_path: Path) -> None:
    assert error(outputs(converted(name, tmp_path).artifact.build()), expected(name)) <= 2e-6


@pytest.mark.slow
def test_a_published_network_gives_the_outputs_by_rule(tmp_path: Path) -> None:
    name = MMDET  # the others take minutes in all; their outputs are in the file too
    assert error(outputs(converted(name, tmp_path).artifact.build()), expected(name)) <= 2e-6


def test_rules_agree_with_mmdetections_own_code() -> None:
    """mmdetection's model was run, with mmcv's compiled operator (`vectors/make_mmdet_deformable.py`)."""
    ran = load_file(VECTORS / "mmdet-dcn.safetensors")
    by_rule = expected(MMDET)
    assert error(tuple(ran[f"whole.{part}"] for part in ("cls", "ltrb", "ctr")), by_rule) <= 1e-5


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"deformable_stages": (2, 3)}, 0.01),  # the fourth stage computed as an ordinary one
        ({"deformable_tower": False}, 0.01),
        ({"stride_in_1x1": False}, 0.01),
    ],
)
def test_another_network_with_the_same_weights_shows(changes: dict[str, Any], least: float, tmp_path: Path) -> None:
    found = converted("small-fcos", tmp_path).artifact
    config = found.config.model_copy(update=changes)
    model = FCOS(config, classes=80)
    model.load_state_dict({key: value for key, value in found.weights.items() if key in model.state_dict()})
    assert error(outputs(model.eval()), expected("small-fcos")) > least


# files that do not fit


@pytest.mark.parametrize(
    ("name", "preset", "block", "tower"),
    [
        ("small-fcos", "fcos-imprv", "backbone.body.layer3.0.conv2", "rpn.head.cls_tower.3"),
        ("small-adelaidet", "adelaidet", "backbone.bottom_up.res4.0.conv2", "proposal_generator.fcos_head.cls_tower.3"),
        ("small-mmdet", "mmdet-tricks", "backbone.layer3.0.conv2", "bbox_head.cls_convs.1.conv"),
    ],
)
def test_misfits_are_listed_by_the_names_in_the_file(
    name: str, preset: str, block: str, tower: str, read: Callable[..., Converted]
) -> None:
    state = hollow_state(keys(SMALL[name]))
    gone = [key for key in state if key.startswith((f"{block}_offset.", f"{block}.conv_offset.", f"{block}.offset."))]
    weight = next(key for key in state if key in (f"{block}.weight", f"{block}.conv.weight"))
    bias = next(key for key in state if key in (f"{tower}.bias", f"{tower}.conv.bias"))
    assert len(gone) == 2
    less = {key: value for key, value in state.items() if key not in (*gone[:1], weight, bias)}
    less[f"{bias}_"] = torch.zeros(3)
    with pytest.raises(ModelError, match="3 missing, 1 unknown") as caught:
        read(less, preset)
    lines = caught.value.details
    assert all(any(line.startswith(f"  {key} [") for line in lines) for key in (gone[0], weight, bias, f"{bias}_"))


def test_block_without_offsets_in_a_deformable_stage_is_listed(read: Callable[..., Converted]) -> None:
    state = hollow_state(keys(SMALL["small-fcos"]))
    less = {key: value for key, value in state.items() if "layer2.0.conv2.offset" not in key}
    with pytest.raises(ModelError, match="2 missing") as caught:
        read(less)
    assert "backbone.body.layer2.0.conv2.offset.bias [27]" in str(caught.value.details)


@pytest.mark.parametrize(("channels", "what"), [(18, "version 1"), (54, "two deformable groups")])
def test_other_kinds_of_deformable_convolutions_are_refused(
    channels: int, what: str, read: Callable[..., Converted]
) -> None:
    state = hollow_state(keys(SMALL["small-mmdet"]))
    for key, value in state.items():
        if ".conv_offset." in key:
            state[key] = torch.zeros(()).expand(channels, *value.shape[1:])
    with pytest.raises(ModelError, match="12 misshapen") as caught:
        read(state, "mmdet-tricks")
    assert f"conv_offset.bias [{channels}], expected [27]" in str(caught.value.details), what
    assert "version 2, with masks, and one deformable group" in str(caught.value.remedy)


def test_stages_and_towers_are_found_separately(read: Callable[..., Converted]) -> None:
    net = SMALL["small-adelaidet"]
    for changed in (replace(net, tower=False), replace(net, deformable=()), replace(net, deformable=(2,))):
        config = read(hollow_state(keys(changed)), "adelaidet").artifact.config
        assert (config.deformable_stages, config.deformable_tower) == (changed.deformable, changed.tower)


def test_names_from_before_version_2_of_mmcvs_layer(read: Callable[..., Converted]) -> None:
    """`conv2.conv_offset` was `conv2_offset`, and `conv.conv_offset` was `conv_offset`."""
    state = seeded_state(keys(SMALL["small-mmdet"]))
    old = {key.replace(".conv2.conv_offset", ".conv2_offset").replace(".conv.conv_offset", ".conv_offset"): value
           for key, value in state.items()}  # fmt: skip
    assert old.keys() != state.keys()
    found, wanted = (read(tensors, "mmdet-tricks").artifact.weights for tensors in (old, state))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_torchvision_has_no_such_model(read: Callable[..., Converted]) -> None:
    found = read(hollow_state(keys(SMALL["small-fcos"]))).artifact
    with pytest.raises(ModelError) as caught:
        to_torchvision(found, where=Path("m.safetensors"))
    assert "deformable_stages is (2, 3, 4), torchvision's is ()" in str(caught.value.details)
