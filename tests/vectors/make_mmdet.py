"""Vectors of mmdetection's FCOS, by running its own head → mmdet-base.safetensors, mmdet-tricks.safetensors, keys.

python tests/vectors/make_mmdet.py    (mmdet, mmengine and mmcv with its operations must be importable)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mmcv
import mmdet
import mmengine
import torch
from mmcv.image.geometric import rescale_size
from mmdet.models.dense_heads import FCOSHead
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from seeded import seeded_picture, seeded_state
from sizes import SIZES
from torch import Tensor, nn

HERE = Path(__file__).parent
CONFIGS = {
    "mmdet-base": "fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "mmdet-tricks": "fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
}
MADE_SIZES = {"c3": [(128, 160), (120, 150)], "c80": [(64, 64), (60, 50)]}
ORIGINAL = [(97, 121), (200, 301)]
"""(height, width) of the pictures before resizing, in the rescaled case; not the same factor on both axes."""


class Slice(nn.Module):
    """A branch's last convolution, replaced by a part of the channels that come in."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.start : self.stop]


def head_of(config: Config, classes: int, *, scales: list[float]) -> FCOSHead:
    """The configuration's head without towers: its input is taken as the output of the three last convolutions."""
    settings = config.model.bbox_head.copy()
    settings.num_classes, settings.test_cfg = classes, config.model.test_cfg
    head = MODELS.build(settings)
    head.cls_convs, head.reg_convs = nn.ModuleList(), nn.ModuleList()
    head.conv_cls, head.conv_reg = Slice(0, classes), Slice(classes, classes + 4)
    head.conv_centerness = Slice(classes + 4, classes + 5)
    for module, value in zip(head.scales, scales, strict=True):
        module.scale.data.fill_(value)
    return head


def maps(cls: Tensor, box: Tensor, ctr: Tensor, levels: list[list[int]]) -> list[Tensor]:
    """[B, P, C], [B, P, 4], [B, P] → one map [B, C + 5, h, w] per level."""
    flat = torch.cat([cls, box, ctr[..., None]], -1)
    parts = flat.split([h * w for h, w in levels], 1)
    return [p.transpose(1, 2).reshape(len(p), -1, h, w) for p, (h, w) in zip(parts, levels, strict=True)]


def flat(levels: list[Tensor]) -> Tensor:
    return torch.cat([level.flatten(2) for level in levels], 2).transpose(1, 2).contiguous()


def truths(boxes: list[Tensor], labels: list[Tensor]) -> list[InstanceData]:
    return [InstanceData(bboxes=b, labels=c) for b, c in zip(boxes, labels, strict=True)]


def assignments(head: FCOSHead, inputs: dict[str, Tensor], about: dict[str, Any]) -> dict[str, Tensor]:
    """The positive points of every synthetic picture with label, distances in pixels and centerness."""
    out = {}
    for name, case in about["assign"].items():
        height, width = case["padded"]
        sizes = [(-(-height // s), -(-width // s)) for s in about["strides"]]
        points = head.prior_generator.grid_priors(sizes, device="cpu")
        stride = torch.cat([torch.full((len(p),), float(s)) for p, s in zip(points, about["strides"], strict=True)])
        for place in range(case["pictures"]):
            key = f"assign.{name}.{place}"
            truth = truths([inputs[f"{key}.boxes"]], [inputs[f"{key}.labels"]])
            labels, targets = head.get_targets(points, truth)
            label, target = torch.cat(labels), torch.cat(targets)
            index = (label != head.num_classes).nonzero()[:, 0]
            pixels = target[index] * (stride[index, None] if head.norm_on_bbox else 1)
            out |= {f"{key}.index": index, f"{key}.label": label[index], f"{key}.ltrb": pixels}
            out[f"{key}.centerness"] = head.centerness_target(target[index])
    return out


def points(head: FCOSHead, strides: list[int]) -> dict[str, Tensor]:
    """Every point of two padded sizes; the second divides by 32 only, so that P6 and P7 hang over."""
    out = {}
    for height, width in ((128, 160), (96, 224)):
        sizes = [(-(-height // s), -(-width // s)) for s in strides]
        out[f"points.{height}x{width}"] = torch.cat(head.prior_generator.grid_priors(sizes, device="cpu"))
    return out


def losses(head: FCOSHead, raw: list[Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    boxes = [inputs[f"truth.{i}.boxes"] for i in range(2)]
    labels = [inputs[f"truth.{i}.labels"] for i in range(2)]
    empty = ([b[:0] for b in boxes], [c[:0] for c in labels])
    out = {}
    head.train()
    for name, truth in {"full": (boxes, labels), "half": ([boxes[0], empty[0][1]], [labels[0], empty[1][1]]),
                        "none": empty}.items():  # fmt: skip
        with torch.no_grad():
            values = head.loss_by_feat(*head.forward(raw), truths(*truth), [{}, {}])
        out |= {f"loss.{name}.{part.removeprefix('loss_')}": value.reshape(()) for part, value in values.items()}
    return out


def results(head: FCOSHead, raw: list[Tensor], case: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Final detections: as configured, with few candidates, and scaled back to pictures of another size."""
    out, about = {}, {}
    head.eval()
    with torch.no_grad():
        answers = head.forward(raw)
    for name in ("default", "few", "rescaled"):
        cfg: ConfigDict = head.test_cfg.copy()
        if name == "few":
            cfg.nms_pre, cfg.max_per_img = 20, 10
        metas = [{"img_shape": size} for size in MADE_SIZES[case]]
        for meta, (h, w) in zip(metas, ORIGINAL, strict=True):
            meta["scale_factor"] = (meta["img_shape"][1] / w, meta["img_shape"][0] / h)
        with torch.no_grad():
            found = head.predict_by_feat(*answers, batch_img_metas=metas, cfg=cfg, rescale=name == "rescaled")
        key = f"post.{case}.{name}"
        about[key] = {
            "sizes": MADE_SIZES[case], "score_threshold": cfg.score_thr, "topk_per_level": cfg.nms_pre,
            "nms_iou": cfg.nms.iou_threshold, "max_detections": cfg.max_per_img, "min_size": cfg.min_bbox_size,
            "original": ORIGINAL if name == "rescaled" else None,
            "scale_factors_w_h": [m["scale_factor"] for m in metas] if name == "rescaled" else None,
        }  # fmt: skip
        for place, one in enumerate(found):
            out |= {f"{key}.{place}.boxes": one.bboxes.contiguous(), f"{key}.{place}.scores": one.scores.contiguous()}
            out[f"{key}.{place}.labels"] = one.labels.contiguous()
    return out, about


def prepared(config: Config, picture: Tensor) -> dict[str, Tensor]:
    """A picture [h, w, RGB] resized to two sizes, and normalised and padded as it is. Files are read as BGR."""
    bgr = picture.flip(-1).contiguous()
    out = {"input": MODELS.build(config.model.data_preprocessor)({"inputs": [bgr.permute(2, 0, 1)]})["inputs"]}
    for w, h in ((50, 33), (19, 13)):
        made = torch.from_numpy(mmcv.imresize(bgr.numpy(), (w, h), interpolation="bilinear"))
        out[f"resized.{w}x{h}"] = made.flip(-1).contiguous()
    return out


def whole(config: Config, name: str) -> dict[str, Tensor]:
    """The configured R50 network with weights made from their names; its state dict's names and shapes are written."""
    settings = config.model.copy()
    settings.backbone.init_cfg = None
    network = MODELS.build(settings).eval()
    keys = {key: list(value.shape) for key, value in network.state_dict().items()}
    (HERE / f"keys_{name}.json").write_text(
        json.dumps(keys, separators=(",", ":")).replace("],", "],\n") + "\n", encoding="utf-8"
    )
    network.load_state_dict(seeded_state(keys), strict=True)
    with torch.no_grad():
        levels = network(seeded_picture(64, 64), mode="tensor")
    cls, box, ctr = (flat(list(part))[0] for part in levels)
    return {"whole.cls": cls[:, ::8].contiguous(), "whole.ltrb": box, "whole.ctr": ctr[:, 0].contiguous()}


def main() -> None:
    init_default_scope("mmdet")
    inputs = load_file(HERE / "inputs.safetensors")
    with safe_open(HERE / "inputs.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"])
    for name, path in CONFIGS.items():
        config = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs/fcos" / path)
        kind = "box_relu" if config.model.bbox_head.get("norm_on_bbox") else "box_exp"
        tensors, notes = {}, {"config": path, "box": kind}
        notes["versions"] = {m.__name__: m.__version__ for m in (mmdet, mmcv, mmengine, torch)}
        for case, made in about["raw"].items():
            head = head_of(config, made["classes"], scales=about["scales"])
            parts = [inputs[f"raw.{case}.{part}"] for part in ("cls", kind, "ctr")]
            raw = maps(*parts, made["levels"])
            if case == "c3":
                tensors |= losses(head, raw, inputs)
                head.eval()
                with torch.no_grad():
                    tensors["ltrb.c3"] = flat(head.forward(raw)[1])[0]
            found, cases = results(head, raw, case)
            tensors |= found
            notes |= cases
        head = head_of(config, 16, scales=about["scales"])
        tensors |= assignments(head, inputs, about) | points(head, about["strides"])
        tensors |= whole(config, name) | prepared(config, inputs["picture"])
        save_file(tensors, HERE / f"{name}.safetensors", metadata={"about": json.dumps(notes)})
    resized = {f"{w}x{h}": rescale_size((w, h), (1333, 800)) for w, h in SIZES}
    (HERE / "sizes_mmdet.json").write_text(
        json.dumps(resized, separators=(",", ":")).replace("],", "],\n") + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
