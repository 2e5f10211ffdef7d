"""Frozen BatchNorm in the weights: the same network and the same gradients, with one pass less over each map."""

import pytest
import torch
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from fcos_cli.train.speed.convolution import TunedConv2d
from fcos_cli.train.speed.folding import FoldedNorm, fold_frozen_norms, scale_and_shift
from tests.tiny import tiny_model


def model_with_statistics(backbone: str) -> nn.Module:
    model = tiny_model(backbone=backbone, backbone_norm="frozen")
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "bias")):
            buffer.normal_(generator=generator)
        if name.endswith(("running_var", "weight")):
            buffer.uniform_(0.5, 1.5, generator=generator)
    return model


@pytest.mark.parametrize(
    ("backbone", "minimum"), [("efficientnet_lite0", 48), ("resnet18", 20), ("mobilenetv3_small_050", 30)]
)
def test_outputs_gradients_and_state_stay_the_same(backbone: str, minimum: int) -> None:
    model = model_with_statistics(backbone).double()
    names, images = list(model.state_dict()), torch.rand(2, 3, 64, 64).double() * 255
    in_eval = model.eval()(images).cls[0]
    plain = model.train()(images)
    sum(level.sum() for level in plain.cls).backward()  # type: ignore[union-attr]
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    assert fold_frozen_norms(model) >= minimum  # type: ignore[arg-type]
    folded = model.train()(images)
    sum(level.sum() for level in folded.cls).backward()  # type: ignore[union-attr]
    for before, after in zip(plain.cls, folded.cls, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    for name, parameter in model.named_parameters():
        if name in gradients:
            scale = gradients[name].abs().max()
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-6, atol=1e-8 * float(scale))
    assert list(model.state_dict()) == names
    assert torch.equal(model.eval()(images).cls[0], in_eval)


def test_a_bias_before_a_frozen_norm_is_trained() -> None:
    conv, norm, images = nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4), torch.randn(2, 3, 8, 8)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 1.5)
    plain = norm(conv(images))
    expected = torch.autograd.grad(plain.square().sum(), list(conv.parameters()))
    tuned = TunedConv2d.wrap(conv)
    tuned.scale, tuned.shift = scale_and_shift(norm)
    folded = tuned.train()(images)
    torch.testing.assert_close(folded, plain)
    gradients = torch.autograd.grad(folded.square().sum(), list(conv.parameters()))
    torch.testing.assert_close(gradients, expected)


def test_trained_norms_are_left_alone() -> None:
    model = tiny_model(backbone="resnet18", backbone_norm="trained")
    assert fold_frozen_norms(model) == 0
    assert not any(isinstance(module, TunedConv2d | FoldedNorm) for module in model.modules())
