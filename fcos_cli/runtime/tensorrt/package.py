"""TensorRT on this machine: its Python module, its log, and the GPU. Imports nothing until needed.

Three products share one Python API: `tensorrt` 10 and 11 (an engine is built on, and for, the GPU that runs it) and
`tensorrt_rtx` (TensorRT for RTX: an engine is built ahead of time on any machine, and finished on the GPU that runs
it). If they differ, the docstring says which one is meant.
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from fcos_cli.errors import MissingExtra, ModelError, UsageError, first_line

if TYPE_CHECKING:
    import torch

Flavour = Literal["trt", "trt-rtx"]

MODULES: dict[str, tuple[str, ...]] = {
    # the first module imports the second; NVIDIA's bindings-only wheels contain only the second
    "trt": ("tensorrt", "tensorrt_bindings"),
    "trt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
NAMES = {"trt": "TensorRT", "trt-rtx": "TensorRT-RTX"}
OLDEST = {"trt": 10, "trt-rtx": 1}


@dataclass(frozen=True)
class Package:
    """An installed TensorRT. version: as reported by the module, for example `10.13.2.6`."""

    flavour: Flavour
    module: ModuleType
    version: str

    @property
    def label(self) -> str:
        return f"{NAMES[self.flavour]} {self.version}"

    @property
    def log(self) -> Log:
        return _log_of(self.module)

    @property
    def logger(self) -> Any:
        """The ILogger that every builder, parser and runtime needs."""
        return _logger_of(self.module)


def find_package(flavour: Flavour) -> Package:
    """Import TensorRT.

    Raises MissingExtra if it is not installed or its libraries cannot be loaded, ModelError if it is too old.
    """
    reason = "it is not installed"
    for name in MODULES[flavour]:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in MODULES[flavour]:
                reason = str(error)
            continue
        except (ImportError, OSError) as error:  # it is installed, but one of its libraries is missing
            reason = first_line(error)
            continue
        version = str(module.__version__)
        if parse_version(version)[0] < OLDEST[flavour]:
            raise ModelError(
                f"{NAMES[flavour]} {version} is too old for strongly typed networks",
                remedy=f"install version {OLDEST[flavour]} or later",
            )
        return Package(flavour, module, version)
    raise MissingExtra(f"{NAMES[flavour]} cannot be used here: {reason}", extra=flavour)


def parse_version(version: str) -> tuple[int, ...]:
    """`10.13.2.6` → (10, 13, 2, 6). Suffixes such as `.post1` and `+cuda13` are ignored."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else (0,)


class Log:
    """The most recent warnings and errors of TensorRT, oldest first."""

    def __init__(self, *, keep: int = 5000) -> None:
        self._lines: deque[tuple[int, str, str]] = deque(maxlen=keep)
        self._count = 0

    def add(self, severity: str, text: str) -> None:
        if severity not in ("INFO", "VERBOSE"):
            self._count += 1
            self._lines.append((self._count, severity, text.strip()))

    def mark(self) -> int:
        """The current position; `warnings` and `errors` return the messages after it."""
        return self._count

    def warnings(self, mark: int) -> list[str]:
        """Warnings and errors since `mark`, without duplicates."""
        return list(dict.fromkeys(text for count, _, text in self._lines if count > mark))

    def errors(self, mark: int, *, last: int = 3) -> str:
        """The last few errors since `mark` in one line, or a placeholder if there are none."""
        texts = [text for count, severity, text in self._lines if count > mark and severity.endswith("ERROR")]
        return "; ".join(" ".join(text.split()) for text in texts[-last:]) or "no reason given"


@lru_cache
def _log_of(module: ModuleType) -> Log:  # noqa: ARG001 (the cache's key)
    """One log per process, as TensorRT ignores a second logger while objects of the first one exist."""
    return Log()


@lru_cache
def _logger_of(module: ModuleType) -> Any:
    log = _log_of(module)

    class Recorder(module.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.ILogger.__init__(self)  # pybind11 requires an explicit call of the base class

        def log(self, severity: Any, msg: str) -> None:
            log.add(severity.name, msg)

    return Recorder()


class Gpu:
    """An NVIDIA GPU, accessed through torch, with a stream of its own.

    name: NVIDIA's name of the GPU. capability: compute capability (major, minor).
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self.device = device
        self.name = torch.cuda.get_device_name(device)
        self.capability = torch.cuda.get_device_capability(device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @property
    def stream(self) -> int:
        """The handle of the CUDA stream that `active` uses."""
        return int(self._stream.cuda_stream)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the current device and `stream` the current stream; synchronize the stream at the end."""
        import torch

        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            yield
            self._stream.synchronize()


def find_gpu(device: str = "auto", *, flavour: Flavour = "trt") -> Gpu | None:
    """The GPU given by `auto`, `cuda` or `cuda:N`, or None if there is no GPU.

    flavour: whose extra is named if torch is missing. Raises UsageError for other names, MissingExtra without torch.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra("TensorRT is used through torch, which is not installed", extra=flavour) from error

    if device != "auto" and not re.fullmatch(r"cuda(:\d+)?", device):
        raise UsageError(
            f"TensorRT runs on NVIDIA GPUs, not on {device!r}",
            where="--device",
            remedy="use --device cuda, or the .onnx file of the model",
        )
    if not torch.cuda.is_available():
        return None
    chosen = torch.device("cuda" if device == "auto" else device)
    index = torch.cuda.current_device() if chosen.index is None else chosen.index
    if index >= torch.cuda.device_count():
        raise UsageError(
            f"there is no {device!r} on this machine: the GPUs are cuda:0 to cuda:{torch.cuda.device_count() - 1}",
            where="--device",
        )
    return Gpu(torch.device("cuda", index))


def format_capability(capability: tuple[int, int]) -> str:
    """(8, 6) → `8.6`."""
    return f"{capability[0]}.{capability[1]}"
