"""The extra `train`: what training, export and PyTorch need in addition to the small installation."""

from __future__ import annotations

from importlib.util import find_spec

from fcos_cli.errors import MissingExtra

PACKAGES = ("torch", "torchvision", "timm", "safetensors", "onnx", "onnxscript")
"""Packages of the extra, as in pyproject.toml. Everything else in this package works without them."""


def is_installed() -> bool:
    """Whether the extra `train` is installed. Nothing is imported."""
    return not _missing()


def require_train(what: str, *, where: object = None, instead: str | None = None) -> None:
    """Raise MissingExtra unless the extra `train` is installed. Nothing is imported.

    what: the command, flag or file that needs it. where: the file. instead: what works without it, as an imperative.
    """
    missing = _missing()
    if missing:
        message = f"{what} needs the extra `train`, of which this installation lacks {', '.join(missing)}"
        raise MissingExtra(message, extra="train", where=where, instead=instead)


def _missing() -> list[str]:
    return [name for name in PACKAGES if find_spec(name) is None]
