"""The rules of each implementation, for reference.py. Sources: the notes and, where run, the vectors themselves."""

from __future__ import annotations

from dataclasses import replace

from reference import Rules

MMDET_TRICKS = Rules(topk_by="class", score="product", clip="before", drop_empty="before", units="strides")
MMDET_BASE = replace(
    MMDET_TRICKS, radius=0, activation="exp", normalised=False, box_loss="iou", nms_iou=0.5, units="pixels"
)
DETECTRON2 = Rules(
    ends="open", area="float32", scales=False, weighted=False, normaliser="average", threshold_on="score", threshold=0.2
)
FCOS_IMPRV = Rules(area="plus", smoothing=True, units="strides", clip="before-1", drop_empty="no", plus=1.0, ties=True)
FCOS_V1 = replace(FCOS_IMPRV, radius=0, activation="exp", normalised=False, box_loss="iou", units="pixels")
ADELAIDET = Rules(smoothing=True, units="strides", ties=True)
ADELAIDET_IOU = replace(ADELAIDET, quality="iou", weighted=False)
