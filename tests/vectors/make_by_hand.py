"""Vectors of the implementations whose code is not run here, by the documented rules → *.safetensors, keys, sizes.

python tests/vectors/make_by_hand.py    (after make_detectron2.py, whose keys are renamed)
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import torch
from dialects import ADELAIDET, ADELAIDET_IOU, FCOS_IMPRV, FCOS_V1
from reference import Rules, assign, centerness, detect, losses, points
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sizes import SIZES
from torch import Tensor

HERE = Path(__file__).parent
MADE_SIZES = [(128, 160), (120, 150)]
ORIGINAL = [(97, 121), (200, 301)]
FAMILIES = {"fcos-v1": FCOS_V1, "fcos-imprv": FCOS_IMPRV, "adelaidet": ADELAIDET, "adelaidet-iou": ADELAIDET_IOU}
INCLUSIVE = torch.tensor([0.0, 0, 1, 1])


def vectors(rules: Rules, inputs: dict[str, Tensor], about: dict) -> dict[str, Tensor]:
    """As in the recorded files. `inclusive` boxes are the same boxes in the implementation's own way."""
    inclusive = rules.plus == 1
    less = INCLUSIVE if inclusive else torch.zeros(4)
    scales = torch.tensor(about["scales"])
    padded = tuple(about["raw"]["c3"]["padded"])
    out = {"points.96x224": points(96, 224, rules)[0]}
    for name, case in about["assign"].items():
        for place in range(case["pictures"]):
            key = f"assign.{name}.{place}"
            match, ltrb = assign(inputs[f"{key}.boxes"] - less, tuple(case["padded"]), rules)
            index = (match >= 0).nonzero()[:, 0]
            out |= {f"{key}.index": index, f"{key}.label": match[index], f"{key}.ltrb": ltrb[index]}
            out[f"{key}.centerness"] = centerness(ltrb[index])
    kind = "box_exp" if rules.activation == "exp" else "box_relu"
    raw = [inputs[f"raw.c3.{part}"] for part in ("cls", kind, "ctr")]
    boxes = [inputs[f"truth.{i}.boxes"] - less for i in range(2)]
    labels = [inputs[f"truth.{i}.labels"] for i in range(2)]
    for name, (full, second) in {"full": (True, True), "half": (True, False), "none": (False, False)}.items():
        use = [slice(None) if wanted else slice(0) for wanted in (full, second)]
        given = [b[u] for b, u in zip(boxes, use, strict=True)], [c[u] for c, u in zip(labels, use, strict=True)]
        found = losses(*raw, *given, padded, scales, rules)
        out |= {f"loss.{name}.{part}": value.reshape(()) for part, value in found.items()}
    for name in ("default", "few", "rescaled"):
        few = replace(rules, topk=20, most=10) if name == "few" else rules
        for place, (size, original) in enumerate(zip(MADE_SIZES, ORIGINAL, strict=True)):
            parts = [value[place] for value in raw]
            one = detect(*parts, padded, size, scales, few, original if name == "rescaled" else None)
            key = f"post.c3.{name}.{place}"
            out |= {f"{key}.boxes": one.boxes + less, f"{key}.scores": one.scores, f"{key}.labels": one.labels}
            if inclusive:
                out[f"{key}.inclusive"] = one.boxes
    return out


def notes(rules: Rules) -> dict:
    about: dict = {"box": "box_exp" if rules.activation == "exp" else "box_relu"}
    for name in ("default", "few", "rescaled"):
        about[f"post.c3.{name}"] = {
            "sizes": MADE_SIZES, "score_threshold": rules.threshold, "topk_per_level": 20 if name == "few" else 1000,
            "nms_iou": rules.nms_iou, "max_detections": 10 if name == "few" else 100,
            "original": ORIGINAL if name == "rescaled" else None,
        }  # fmt: skip
    return about


def adelaidet_keys(keys: dict[str, list[int]]) -> dict[str, list[int]]:
    """detectron2's names → AdelaiDet's."""
    head = {"cls_subnet": "cls_tower", "bbox_subnet": "bbox_tower", "cls_score": "cls_logits"}
    out = {}
    for key, shape in keys.items():
        if key.startswith("head."):
            part, _, tail = key.removeprefix("head.").partition(".")
            key = f"proposal_generator.fcos_head.{head.get(part, part)}.{tail}"
        out[key] = shape
    return out | {f"proposal_generator.fcos_head.scales.{i}.scale": [1] for i in range(5)}


def original_keys(keys: dict[str, list[int]]) -> dict[str, list[int]]:
    """AdelaiDet's names → those of the original repository, without the `module.` that its files carry."""
    out = {}
    for key, shape in keys.items():
        key = key.replace("proposal_generator.fcos_head.", "rpn.head.").replace(".ctrness.", ".centerness.")
        key = key.replace("backbone.bottom_up.", "backbone.body.").replace(
            "backbone.top_block", "backbone.fpn.top_blocks"
        )
        key = re.sub(r"body\.res(\d)", lambda m: f"body.layer{int(m[1]) - 1}", key)
        key = re.sub(r"conv(\d)\.norm", r"bn\1", key)
        key = key.replace("shortcut.norm", "downsample.1").replace("shortcut.", "downsample.0.")
        key = re.sub(r"fpn_lateral(\d)", lambda m: f"fpn.fpn_inner{int(m[1]) - 1}", key)
        out[re.sub(r"fpn_output(\d)", lambda m: f"fpn.fpn_layer{int(m[1]) - 1}", key)] = shape
    return out


def original_size(width: int, height: int, short: int = 800, most: int = 1333) -> tuple[int, int]:
    """The short side becomes `short`, or less (rounded) so that the long one would not exceed `most`; the long one
    follows from it and is cut off, not rounded. A short side that is right already leaves the picture as it is."""
    low, high = float(min(width, height)), float(max(width, height))
    if high / low * short > most:
        short = round(most * low / high)
    if min(width, height) == short:
        return width, height
    long = int(short * max(width, height) / min(width, height))
    return (short, long) if width < height else (long, short)


def write(name: str, value: dict) -> None:
    (HERE / name).write_text(json.dumps(value, separators=(",", ":")).replace("],", "],\n") + "\n", encoding="utf-8")


def main() -> None:
    inputs = load_file(HERE / "inputs.safetensors")
    with safe_open(HERE / "inputs.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"])
    for name, rules in FAMILIES.items():
        tensors = {key: value.contiguous() for key, value in vectors(rules, inputs, about).items()}
        if rules is ADELAIDET_IOU:  # the rest is adelaidet's
            tensors = {key: value for key, value in tensors.items() if key.startswith("loss.")}
        save_file(tensors, HERE / f"{name}.safetensors", metadata={"about": json.dumps(notes(rules))})
    keys = adelaidet_keys(json.loads((HERE / "keys_detectron2.json").read_text(encoding="utf-8")))
    write("keys_adelaidet.json", keys)
    write("keys_fcos.json", original_keys(keys))
    write("sizes_fcos.json", {f"{w}x{h}": original_size(w, h) for w, h in SIZES})


if __name__ == "__main__":
    main()
