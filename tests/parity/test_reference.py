"""The reference is what an exported file should give, also where PyTorch should give something else."""

from __future__ import annotations

import torch

from fcos_cli.model.conventions import Conventions
from fcos_cli.model.head import RawOutputs
from fcos_cli.parity.reference import Reference
from fcos_cli.runtime.pytorch import facts_of
from tests.parity.fakes import detecting_artifact

SIZE = (800, 1344)


def test_nms_is_exact_as_in_every_export_whatever_the_conventions() -> None:
    artifact = detecting_artifact(classes=80, conventions=Conventions(nms="batched"))
    sizes = [(-(-SIZE[0] // stride), -(-SIZE[1] // stride)) for stride in artifact.config.strides]
    fills = ((80, -30.0), (4, 0.0), (1, 8.0))
    raw = RawOutputs(*([torch.full((1, count, h, w), fill) for h, w in sizes] for count, fill in fills))
    # 100 px wide, shifted by 25.001: an IoU just below 0.6, which the float32 offset of class 79 rounds to 0.6
    for column, x, logit in ((143, 1100.0, 3.0), (146, 1125.001, 2.0)):
        centre = 8 * (column + 0.5)
        raw.ltrb[0][0, :, 88, column] = torch.tensor([centre - x, 8.0, x + 100 - centre, 12.0])
        raw.cls[0][0, 79, 88, column] = logit
    by_pytorch = artifact.build().post_process(raw, height=SIZE[0], width=SIZE[1])
    assert by_pytorch.counts.tolist() == [1]
    assert Reference(artifact, facts_of(artifact)).post(raw, SIZE).counts.tolist() == [2]
