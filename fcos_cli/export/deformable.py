"""Deformable convolution in exported files: ONNX has an operation for it, TensorRT has no layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fcos_cli.errors import ModelError

if TYPE_CHECKING:
    import onnx

    from fcos_cli.model.config import ModelConfig


def deform_conv(
    images: Any,
    weight: Any,
    offset: Any,
    mask: Any,
    bias: Any,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,  # noqa: ARG001, FBT001 (the operator's signature; ours always have one)
) -> Any:
    """`torchvision::deform_conv2d` in ONNX, whose DeformConv has the same order of offsets and masks (opset 19)."""
    from onnxscript import opset20

    op: Any = opset20
    return op.DeformConv(
        images,
        weight,
        offset,
        bias,
        mask,
        strides=[stride_h, stride_w],
        pads=[pad_h, pad_w, pad_h, pad_w],
        dilations=[dilation_h, dilation_w],
        group=groups,
        offset_group=offset_groups,
    )


def refuse_engine(config: ModelConfig) -> None:
    """Raise ModelError if the network cannot become a TensorRT engine."""
    if config.deformable:
        raise ModelError(
            "TensorRT has no layer for the deformable convolutions of this model",
            where="model.deformable_stages, model.deformable_tower",
            remedy="export to ONNX, for ONNX Runtime (--format onnx), or to OpenVINO (--format openvino)",
        )


def offset_convolutions(proto: onnx.ModelProto) -> list[str]:
    """Names of the convolutions that tell deformable ones where to look and how much each tap counts."""
    producer = {name: node for node in proto.graph.node for name in node.output}
    found = []
    for node in proto.graph.node:
        if node.op_type == "DeformConv":
            for name in filter(None, (node.input[2], *node.input[4:])):
                before = producer[name]  # what lies between (Split, Sigmoid) has its data in the first input
                while before.op_type != "Conv":
                    before = producer[before.input[0]]
                found.append(before.name)
    return list(dict.fromkeys(found))
