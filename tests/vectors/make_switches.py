"""One switch at a time set wrong: in which vectors does it show? → switches.json

python tests/vectors/make_switches.py    (needs only this folder; refuses if a right setting differs anywhere)
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from dialects import ADELAIDET, ADELAIDET_IOU, DETECTRON2, FCOS_IMPRV, FCOS_V1, MMDET_BASE, MMDET_TRICKS
from reference import Rules, assign, detect, distances, losses, points
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent
FAMILIES = {
    "mmdet-base": MMDET_BASE, "mmdet-tricks": MMDET_TRICKS, "detectron2": DETECTRON2, "fcos-v1": FCOS_V1,
    "fcos-imprv": FCOS_IMPRV, "adelaidet": ADELAIDET, "adelaidet-iou": ADELAIDET_IOU,
}  # fmt: skip
VALUES: dict[str, tuple[object, ...]] = {
    "offset": (0.0, 0.5), "ends": ("closed", "open", "half-open"), "radius": (0, 1.5),
    "area": ("exact", "plus", "float32"), "activation": ("relu", "exp"), "normalised": (True, False),
    "scales": (True, False), "smoothing": (True, False), "box_loss": ("giou", "iou"), "weighted": (True, False),
    "quality": ("centerness", "iou"), "normaliser": ("count", "average"), "threshold_on": ("class", "score"),
    "threshold": (0.05, 0.2), "topk_by": ("product", "class"), "score": ("sqrt", "product"),
    "clip": ("before", "after", "before-1"), "drop_empty": ("before", "after", "no"), "nms_iou": (0.5, 0.6),
    "plus": (0.0, 1.0),
}  # fmt: skip
NAMES = {"bbox": "box", "loc": "box", "centerness": "ctr"}


def described(path: Path) -> tuple[dict[str, Tensor], dict]:
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["about"])


def differing(family: str, right: Rules, wrong: Rules) -> dict[str, int | float]:
    """What differs from a family's vectors under `wrong` rules; boxes are still given in the family's convention."""
    inputs, about = described(HERE / "inputs.safetensors")
    frozen, notes = described(HERE / f"{family}.safetensors")
    less = torch.tensor([0.0, 0, right.plus, right.plus])
    scales, kind = torch.tensor(about["scales"]), notes["box"]
    found: dict[str, int | float] = {"points": 0, "assign": 0, "ltrb": 0, "loss": 0.0, "post": 0}
    for key in (k for k in frozen if k.startswith("points.")):
        height, width = map(int, key.removeprefix("points.").split("x"))
        found["points"] += int((points(height, width, wrong)[0] != frozen[key]).any(1).sum())
    for key in (k.removesuffix(".index") for k in frozen if k.endswith(".index")):
        size = tuple(about["assign"][key.split(".")[1]]["padded"])
        match, ltrb = assign(inputs[f"{key}.boxes"] - less, size, wrong)
        said, want = torch.full_like(match, -1), torch.zeros_like(ltrb)
        said[frozen[f"{key}.index"]], want[frozen[f"{key}.index"]] = frozen[f"{key}.label"], frozen[f"{key}.ltrb"]
        other = (said != match) | ((ltrb != want).any(1) & (match >= 0))
        found["assign"] += int(other.sum())
    raw = [inputs[f"raw.c3.{part}"] for part in ("cls", kind, "ctr")]
    if "ltrb.c3" in frozen:
        ltrb = distances(raw[1][0], *points(128, 160, wrong)[1:], scales, wrong)
        found["ltrb"] = int((ltrb - frozen["ltrb.c3"]).abs().gt(1e-3).any(1).sum())
    truth = [inputs[f"truth.{i}.boxes"] - less for i in range(2)], [inputs[f"truth.{i}.labels"] for i in range(2)]
    made = losses(*raw, *truth, (128, 160), scales, wrong)
    for key, value in frozen.items():
        part = key.removeprefix("loss.full.")
        if key.startswith("loss.full.") and part != "normaliser":
            part = NAMES.get(part, part)
            found["loss"] = max(found["loss"], float((made[part] - value).abs() / value))
    for key, case in notes.items():
        if key.startswith("post.") and f"{key}.0.boxes" in frozen:
            found["post"] += sum(_unlike(inputs, frozen, key, case, place, about, wrong, kind) for place in range(2))
    return found


def _unlike(
    inputs: dict[str, Tensor], frozen: dict[str, Tensor], key: str, case: dict, place: int, about: dict,
    rules: Rules, kind: str,
) -> int:  # fmt: skip
    """How many final detections of one picture are on one side only."""
    made = key.split(".")[1]
    raw = [inputs[f"raw.{made}.{part}"][place] for part in ("cls", kind, "ctr")]
    rules = replace(rules, topk=case["topk_per_level"], most=case["max_detections"])
    original = case["original"] and tuple(case["original"][place])
    size = tuple(case["sizes"][place])
    mine = detect(*raw, tuple(about["raw"][made]["padded"]), size, torch.tensor(about["scales"]), rules, original)
    boxes = frozen.get(f"{key}.{place}.inclusive", frozen[f"{key}.{place}.boxes"])
    theirs = torch.cat([boxes, frozen[f"{key}.{place}.scores"][:, None], frozen[f"{key}.{place}.labels"][:, None]], 1)
    ours = torch.cat([mine.boxes, mine.scores[:, None], mine.labels[:, None]], 1)
    if not len(ours) or not len(theirs):
        return len(ours) + len(theirs)
    same = (ours[:, None] - theirs[None]).abs().amax(-1) < 1e-4
    return int((~same.any(1)).sum() + (~same.any(0)).sum())


def main() -> None:
    table: dict[str, dict[str, dict[str, int | float]]] = {}
    for family, rules in FAMILIES.items():
        right = differing(family, rules, rules)
        if right["loss"] > 1e-5 or any(value for name, value in right.items() if name != "loss"):
            raise SystemExit(f"{family}: the reference does not give the vectors: {right}")
        rows = table.setdefault(family, {})
        for switch, values in VALUES.items():
            for value in values:
                if value != getattr(rules, switch):
                    shown = differing(family, rules, replace(rules, **{switch: value}))
                    rows[f"{switch}={value}"] = {k: round(v, 6) for k, v in shown.items() if v > (k == "loss") * 1e-5}
    lines = [
        f'"{family}": {{\n' + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "\n}"
        for family, rows in table.items()
    ]
    (HERE / "switches.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
