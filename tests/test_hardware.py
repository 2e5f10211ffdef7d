"""Which devices compute in bf16 at full speed."""

from __future__ import annotations

import pytest
import torch

from fcos_cli.hardware import has_native_bf16


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_since_ampere_have_native_bf16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert has_native_bf16(torch.device("cuda")) is native


def test_cpu_is_supported() -> None:
    assert has_native_bf16(torch.device("cpu")) in (True, False)
