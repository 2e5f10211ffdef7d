"""Hardware capabilities of a device."""

from __future__ import annotations

import torch


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 natively. Emulation on a CPU is 20 times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # oneDNN's own check is not public; a build without it is treated as a CPU without bf16
    probe = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(probe()) and torch.backends.cpu.get_cpu_capability() != "AVX2" if probe else False
