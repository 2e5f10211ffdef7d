"""Packages beyond the small installation: the extras `train` and `ray`, and the versions of what is installed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec

from fcos_cli.errors import MissingExtra

PACKAGES = ("torch", "torchvision", "timm", "safetensors", "onnx", "onnxscript")
"""Packages of the extra, as in pyproject.toml. Everything else in this package works without them."""


RAY_PACKAGES = ("ray", "pyarrow", "pandas")
"""Packages of the extra `ray`, which only `fcos predict --engine ray` needs."""


def is_installed() -> bool:
    """Whether the extra `train` is installed. Nothing is imported."""
    return not _missing(PACKAGES)


def require_train(what: str, *, where: object = None, instead: str | None = None) -> None:
    """Raise MissingExtra unless the extra `train` is installed. Nothing is imported.

    what: the command, flag or file that needs it. where: the file. instead: what works without it, as an imperative.
    """
    _require("train", PACKAGES, what, where=where, instead=instead)


def require_ray(what: str) -> None:
    """Raise MissingExtra unless the extra `ray` is installed. Nothing is imported."""
    _require("ray", RAY_PACKAGES, what)


def _require(
    extra: str, packages: tuple[str, ...], what: str, *, where: object = None, instead: str | None = None
) -> None:
    if missing := _missing(packages):
        message = f"{what} needs the extra `{extra}`, of which this installation lacks {', '.join(missing)}"
        raise MissingExtra(message, extra=extra, where=where, instead=instead)


def _missing(packages: tuple[str, ...]) -> list[str]:
    return [name for name in packages if find_spec(name) is None]


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Package → version, for those that are installed. None of them is imported."""
    from importlib import metadata  # slow, and most commands need no versions

    installed = {}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed
