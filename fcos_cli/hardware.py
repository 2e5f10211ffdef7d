"""What a device can compute at full speed."""

from __future__ import annotations

import torch


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 natively. CPUs that emulate it are 20 times slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # oneDNN's own check; it is not public, so a build without it counts as a CPU without bf16
    probe = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(probe()) and torch.backends.cpu.get_cpu_capability() != "AVX2" if probe else False
