"""Vectors of detectron2's FCOS, by running its own meta architecture → detectron2.safetensors, keys and sizes.

python tests/vectors/make_detectron2.py FOLDER    (detectron2 importable; FOLDER: its repository's configs/)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data.transforms import ResizeShortestEdge, ResizeTransform
from detectron2.layers import ShapeSpec, batched_nms
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from seeded import seeded_picture, seeded_state
from sizes import SIZES
from torch import Tensor, nn

HERE = Path(__file__).parent
MADE_SIZES = {"c3": [(128, 160), (120, 150)], "c80": [(64, 64), (60, 50)]}
ORIGINAL = [(97, 121), (200, 301)]


class Shapes(nn.Module):
    """Takes the backbone's place: the detector asks it for nothing but the strides of its levels."""

    def __init__(self, strides: list[int]) -> None:
        super().__init__()
        self.strides = strides

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {f"p{i + 3}": ShapeSpec(channels=1, stride=s) for i, s in enumerate(self.strides)}


def detector(classes: int, strides: list[int]) -> FCOS:
    names = [f"p{i + 3}" for i in range(len(strides))]
    return FCOS(backbone=Shapes(strides), head=nn.Identity(), head_in_features=names, num_classes=classes,
                pixel_mean=[0.0], pixel_std=[1.0])  # fmt: skip


def maps(flat: Tensor, levels: list[list[int]]) -> list[Tensor]:
    parts = flat.split([h * w for h, w in levels], 1)
    return [p.transpose(1, 2).reshape(len(p), -1, h, w) for p, (h, w) in zip(parts, levels, strict=True)]


def flat(levels: list[Tensor]) -> Tensor:
    return torch.cat([level.flatten(2) for level in levels], 2).transpose(1, 2).contiguous()


def truth(boxes: Tensor, labels: Tensor) -> Instances:
    return Instances((1, 1), gt_boxes=Boxes(boxes), gt_classes=labels)


def empty_maps(height: int, width: int, strides: list[int]) -> list[Tensor]:
    return [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in strides]


def centres(anchors: list[Boxes]) -> Tensor:
    return Boxes.cat(anchors).get_centers()


def distances(model: FCOS, deltas: Tensor, anchors: list[Boxes]) -> Tensor:
    """[B, P, 4] of the box branch → distances in pixels, from the boxes that detectron2 decodes at the points."""
    middle = centres(anchors)
    boxes = torch.stack([model.box2box_transform.apply_deltas(one, Boxes.cat(anchors).tensor) for one in deltas])
    return torch.cat([middle - boxes[..., :2], boxes[..., 2:] - middle], -1)


def assignments(model: FCOS, inputs: dict[str, Tensor], about: dict[str, Any]) -> dict[str, Tensor]:
    out = {}
    for name, case in about["assign"].items():
        anchors = model.anchor_generator(empty_maps(*case["padded"], about["strides"]))
        size = Boxes.cat(anchors).tensor[:, 2] - Boxes.cat(anchors).tensor[:, 0]
        for place in range(case["pictures"]):
            key = f"assign.{name}.{place}"
            labels, boxes = model.label_anchors(anchors, [truth(inputs[f"{key}.boxes"], inputs[f"{key}.labels"])])
            index = (labels[0] != model.num_classes).nonzero()[:, 0]
            deltas = model.box2box_transform.get_deltas(Boxes.cat(anchors).tensor, boxes[0])
            out |= {f"{key}.index": index, f"{key}.label": labels[0][index]}
            out[f"{key}.ltrb"] = (deltas * size[:, None])[index]
            out[f"{key}.centerness"] = model.compute_ctrness_targets(anchors, boxes)[0][index]
    return out


def losses(model: FCOS, raw: list[list[Tensor]], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The three losses, and the running normaliser after the step; each case starts afresh at 300."""
    boxes = [inputs[f"truth.{i}.boxes"] for i in range(2)]
    labels = [inputs[f"truth.{i}.labels"] for i in range(2)]
    full = [truth(b, c) for b, c in zip(boxes, labels, strict=True)]
    none = [truth(b[:0], c[:0]) for b, c in zip(boxes, labels, strict=True)]
    out = {}
    for name, batch in {"full": full, "half": [full[0], none[1]], "none": none}.items():
        model = detector(model.num_classes, model.backbone.strides)
        with EventStorage(), torch.no_grad():
            values = model.forward_training(None, raw[0], raw, batch)
        out |= {f"loss.{name}.{part.removeprefix('loss_fcos_')}": v.reshape(()).clone() for part, v in values.items()}
        out[f"loss.{name}.normaliser"] = torch.tensor(float(model.loss_normalizer))
    return out


def results(model: FCOS, raw: list[list[Tensor]], case: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    out, about = {}, {}
    for name in ("default", "few", "rescaled"):
        if name == "few":
            model.test_topk_candidates, model.max_detections_per_image = 20, 10
        else:
            model.test_topk_candidates, model.max_detections_per_image = 1000, 100
        images = ImageList(torch.zeros(2, 1, *MADE_SIZES[case][0]), MADE_SIZES[case])
        with torch.no_grad():
            found = model.forward_inference(images, raw[0], [[level.clone() for level in part] for part in raw])
        key = f"post.{case}.{name}"
        about[key] = {
            "sizes": MADE_SIZES[case], "score_threshold": model.test_score_thresh,
            "topk_per_level": model.test_topk_candidates, "nms_iou": model.test_nms_thresh,
            "max_detections": model.max_detections_per_image, "original": ORIGINAL if name == "rescaled" else None,
        }  # fmt: skip
        for place, (one, size, original) in enumerate(zip(found, MADE_SIZES[case], ORIGINAL, strict=True)):
            if name == "default":
                out[f"{key}.{place}.before"] = one.pred_boxes.tensor.clone()
            one = detector_postprocess(one, *(original if name == "rescaled" else size))
            out |= {f"{key}.{place}.boxes": one.pred_boxes.tensor, f"{key}.{place}.scores": one.scores}
            out[f"{key}.{place}.labels"] = one.pred_classes
    return out, about


def corner() -> dict[str, Tensor]:
    """Boxes of two classes that do not touch: unclipped, torchvision's class offset lays one on the other."""
    boxes = torch.tensor([[100.0, 100, 160, 160], [-57, -57, 5, 5]])
    scores, classes = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
    return {"corner.boxes": boxes, "corner.scores": scores, "corner.labels": classes,
            "corner.keep": batched_nms(boxes, scores, classes, 0.6)}  # fmt: skip


def resized(picture: Tensor) -> dict[str, Tensor]:
    out = {}
    for w, h in ((50, 33), (19, 13)):
        change = ResizeTransform(picture.shape[0], picture.shape[1], h, w, Image.BILINEAR)
        out[f"resized.{w}x{h}"] = torch.from_numpy(change.apply_image(picture.numpy()).copy())
    return out


def whole(folder: Path, picture: Tensor) -> dict[str, Tensor]:
    config = LazyConfig.load(str(folder / "COCO-Detection/fcos_R_50_FPN_1x.py"))
    network = instantiate(config.model).eval()
    keys = {key: list(value.shape) for key, value in network.state_dict().items()}
    (HERE / "keys_detectron2.json").write_text(
        json.dumps(keys, separators=(",", ":")).replace("],", "],\n") + "\n", encoding="utf-8"
    )
    network.load_state_dict(seeded_state(keys), strict=True)
    with torch.no_grad():
        features = network.backbone(seeded_picture(64, 64))
        features = [features[name] for name in network.head_in_features]
        cls, box, ctr = (flat(part) for part in network.head(features))
        ltrb = distances(network, box, network.anchor_generator(features))
    bgr = picture.flip(-1).permute(2, 0, 1).float()
    made = {"input": network.preprocess_image([{"image": bgr}]).tensor}
    return made | {"whole.cls": cls[0, :, ::8], "whole.ltrb": ltrb[0], "whole.ctr": ctr[0, :, 0].contiguous()}


def main() -> None:
    inputs = load_file(HERE / "inputs.safetensors")
    with safe_open(HERE / "inputs.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"])
    strides = about["strides"]
    tensors, notes = corner(), {"box": "box_relu", "versions": {"torch": torch.__version__}}
    for case, made in about["raw"].items():
        model = detector(made["classes"], strides)
        raw = [maps(inputs[f"raw.{case}.{part}"], made["levels"]) for part in ("cls", "box_relu")]
        raw.append(maps(inputs[f"raw.{case}.ctr"][..., None], made["levels"]))
        if case == "c3":
            tensors |= losses(model, raw, inputs)
            tensors["ltrb.c3"] = distances(model, inputs["raw.c3.box_relu"][:1], model.anchor_generator(raw[0]))[0]
        found, cases = results(model, raw, case)
        tensors |= found
        notes |= cases
    model = detector(16, strides)
    tensors |= assignments(model, inputs, about)
    for height, width in ((128, 160), (96, 224)):
        anchors = model.anchor_generator(empty_maps(height, width, strides))
        tensors[f"points.{height}x{width}"] = centres(anchors)
    tensors |= whole(Path(sys.argv[1]), inputs["picture"]) | resized(inputs["picture"])
    made = {name: value.contiguous().clone() for name, value in tensors.items()}
    save_file(made, HERE / "detectron2.safetensors", metadata={"about": json.dumps(notes)})
    sizes = {f"{w}x{h}": ResizeShortestEdge.get_output_shape(h, w, 800, 1333)[::-1] for w, h in SIZES}
    (HERE / "sizes_detectron2.json").write_text(
        json.dumps(sizes, separators=(",", ":")).replace("],", "],\n") + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
