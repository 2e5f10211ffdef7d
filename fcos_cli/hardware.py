"""What a device computes in at full speed."""

from __future__ import annotations

import torch


def has_native_bf16(device: torch.device) -> bool:
    """Does it multiply in bfloat16, or only imitate that? Imitation is twenty times slower than float32 on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # the probe oneDNN itself uses; it has no public name, so a build without it counts as a processor without bf16
    probe = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(probe()) and torch.backends.cpu.get_cpu_capability() != "AVX2" if probe else False
