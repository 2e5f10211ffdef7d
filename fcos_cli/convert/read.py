"""Read the tensors and plain values of a foreign checkpoint. Code in the file is never run."""

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

from fcos_cli.errors import ModelError, UsageError, first_line

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which trainers save the weights."""

EXPORTED = (".onnx", ".xml", ".engine")

META = ("cfg", "config", "CLASSES", "dataset_meta", "mmdet_version")
"""What `mmdet_config` reads of mmdetection's `meta`."""


@dataclass(frozen=True)
class Checkpoint:
    """A foreign checkpoint.

    weights: tensors by foreign name, without the prefix `module.`. meta: mmdetection's `meta` entry. dropped: names of
    all other entries of the file.
    """

    weights: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the tensors of a `.pth`, `.pt`, `.pkl` or `.safetensors` file.

    Raises ModelError if the file cannot be read, or not without running code in it; UsageError if it is an fcos model.
    """
    if not path.is_file():
        raise ModelError("no such file", where=path, remedy="check the path")
    if path.suffix.lower() in EXPORTED:
        what = "this is an exported model, not a checkpoint"
        raise ModelError(what, where=path, remedy="use it as it is, or convert the checkpoint that it was made from")
    if path.suffix.lower() == ".safetensors":
        return _unwrap(path, _read_safetensors(path))
    return _unwrap(path, _read_pickle(path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if "format_version" in (file.metadata() or {}):
                raise UsageError(
                    "this is already an fcos model",
                    where=path,
                    remedy="use it as it is, or add --to torchvision",
                )
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; an error follows anyway
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        imported = re.findall(r"GLOBAL ([\w.]+)", str(error))
        with path.open("rb") as file:
            plain = not imported and file.read(1) == b"\x80"
        if imported or plain:
            raise _unsafe(path, "" if plain else imported[0]) from error
        raise _unreadable(path, ValueError("not a file written by torch.save")) from error
    except Exception as error:  # torch raises many types for truncated files and files of other kinds
        raise _unreadable(path, error) from error


def _unsafe(path: Path, imported: str) -> ModelError:
    imports, load = "torch", f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
    if not imported:
        imports = "pathlib, pickle, torch"
        load = f"pickle.loads(pathlib.Path({str(path)!r}).read_bytes(), encoding='latin1')"
    return ModelError(
        "the file holds more than tensors and plain values; opening it would run code: "
        + (imported or "a pickle not written by torch"),
        where=path,
        remedy="if you trust its source, save only its tensors and its config, and convert those:\n"
        f"    import {imports}; file = {load}\n"
        "    tensors = file.get('state_dict', file.get('model', file))\n"
        "    tensors = {k: torch.as_tensor(v) for k, v in tensors.items()}\n"
        f"    meta = {{k: v for k, v in file.get('meta', {{}}).items() if k in {META}}}\n"
        "    torch.save({'state_dict': tensors, 'meta': meta}, 'tensors.pth')",
    )


def _unreadable(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"not a readable checkpoint ({first_line(error)[:200]})",
        where=path,
        remedy="download it again; it may be truncated or not a checkpoint, for example a web page",
    )


def _unwrap(path: Path, content: Any) -> Checkpoint:
    """Find the state dict in what the trainer saved."""
    if not isinstance(content, Mapping):
        raise ModelError(
            f"the file holds a {type(content).__name__}, not a dict of tensors",
            where=path,
            remedy="save the model's state_dict()",
        )
    wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    state = content if wrapper is None else content[wrapper]
    others = [] if wrapper is None else [str(key) for key in content if key not in (wrapper, "meta")]
    weights = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    others += [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if not weights:
        raise ModelError(
            "the file holds no dict of tensors",
            where=f"{path}: {', '.join(map(str, list(content)[:20])) or 'empty'}",
            remedy=f"save the model's state_dict(), alone or under one of the keys {', '.join(WRAPPERS)}",
        )
    if all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    meta = content.get("meta") if wrapper else None
    return Checkpoint(weights, dict(meta) if isinstance(meta, Mapping) else {}, tuple(others))
