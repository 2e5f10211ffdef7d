"""Reading a foreign checkpoint: tensors and plain values only; no code in a file is ever run."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fcos_cli.errors import ModelError, UsageError

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Under which of these keys trainers put the weights."""


@dataclass(frozen=True)
class Checkpoint:
    """weights: tensors by their foreign names, without `module.`. meta: what mmdetection writes beside them.
    dropped: names of whatever else was in the file."""

    weights: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a `.pth`, `.pt`, `.pkl` or `.safetensors` file.

    Raises ModelError for a file that cannot be read, or only by running code that it holds.
    """
    if not path.is_file():
        raise ModelError("there is no such file", where=path, remedy="check the path")
    if path.suffix.lower() == ".safetensors":
        return _unwrap(path, _read_safetensors(path))
    return _unwrap(path, _read_pickle(path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if "format_version" in (file.metadata() or {}):
                raise UsageError(
                    "this is an artifact of fcos already; there is nothing to convert",
                    where=path,
                    remedy="use it as it is, or add --to torchvision",
                )
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle protocols; the error that follows says more
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        wanted = re.findall(r"GLOBAL ([\w.]+)", str(error))
        with path.open("rb") as file:
            plain = not wanted and file.read(1) == b"\x80"
        if wanted or plain:
            raise _refused(path, "" if plain else wanted[0]) from error
        raise _unreadable(path, ValueError("no archive and no pickle of torch's")) from error
    except Exception as error:  # torch raises many kinds for files that are cut off or no checkpoints at all
        raise _unreadable(path, error) from error


def _refused(path: Path, wanted: str) -> ModelError:
    imports, opened = "torch", f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
    if not wanted:
        imports = "pathlib, pickle, torch"
        opened = f"pickle.loads(pathlib.Path({str(path)!r}).read_bytes(), encoding='latin1')"
    return ModelError(
        "this file holds more than tensors and plain values, and is not opened, since that would run code: "
        + (wanted or "a pickle that torch did not write"),
        where=path,
        remedy="if you trust where it came from, save its tensors alone and convert those:\n"
        f"    import {imports}; file = {opened}\n"
        "    tensors = file.get('state_dict', file.get('model', file))\n"
        "    torch.save({k: torch.as_tensor(v) for k, v in tensors.items()}, 'tensors.pth')",
    )


def _unreadable(path: Path, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(
        f"this is not a readable checkpoint ({reason[:200]})",
        where=path,
        remedy="the file may be cut off or of another kind, such as a web page; fetch it again",
    )


def _unwrap(path: Path, content: Any) -> Checkpoint:
    """The state dict in what a trainer saved around it."""
    if not isinstance(content, Mapping):
        raise ModelError(
            f"the file holds a {type(content).__name__}, not tensors by name",
            where=path,
            remedy="save the model's state_dict()",
        )
    inside = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    state = content if inside is None else content[inside]
    others = [] if inside is None else [str(key) for key in content if key not in (inside, "meta")]
    weights = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    others += [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if not weights:
        raise ModelError(
            "the file holds no tensors by name",
            where=f"{path}: {', '.join(map(str, list(content)[:20])) or 'empty'}",
            remedy=f"save the model's state_dict(), alone or under one of {', '.join(WRAPPERS)}",
        )
    if all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    meta = content.get("meta") if inside else None
    return Checkpoint(weights, dict(meta) if isinstance(meta, Mapping) else {}, tuple(others))
