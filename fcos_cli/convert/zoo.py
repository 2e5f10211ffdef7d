"""Published weights by name: `coco` is torchvision's FCOS, downloaded on request, converted and cached."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from urllib.error import URLError

from fcos_cli import __version__
from fcos_cli.console import say
from fcos_cli.errors import ModelError
from fcos_cli.model.artifact import save


def cache_folder() -> Path:
    """Return the folder for converted weights: fcos/VERSION/ in XDG_CACHE_HOME or ~/.cache.

    Each version converts again, because a newer one may support more conventions.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fcos" / __version__


def coco_weights() -> Path:
    """Return the artifact of torchvision's `FCOS_ResNet50_FPN_Weights.COCO_V1` (80 classes, published box AP 39.2).

    torchvision downloads the file to torch hub's folder if it is not there yet. Raises ModelError if there is no
    network or the hash of the file is wrong.
    """
    from torchvision.models.detection import FCOS_ResNet50_FPN_Weights as Published

    from fcos_cli.convert.run import convert

    name = Path(Published.COCO_V1.url).name
    converted = cache_folder() / f"{Path(name).stem}.safetensors"
    if not converted.is_file():
        downloaded = fetch(Published.COCO_V1)
        save(converted, convert(downloaded, source="torchvision").artifact)
        say(f"converted: {converted}")
    return converted


def fetch(weights: object) -> Path:
    """Return the file of torchvision's `weights` in torch hub's folder, downloading it with torchvision if missing.

    The file name holds the first digits of its SHA-256, which is checked in both cases.
    """
    import torch

    url = str(getattr(weights, "url"))  # noqa: B009 - torchvision's enum has no type hints
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.is_file():
        say(f"downloading {url}")
        try:
            with redirect_stdout(sys.stderr):  # torch prints messages to stdout, which is for data
                weights.get_state_dict(  # type: ignore[attr-defined]
                    check_hash=True, progress=sys.stderr.isatty(), map_location="cpu", weights_only=True
                )
        except (URLError, OSError, RuntimeError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise ModelError(
                f"the weights `coco` could not be downloaded ({reason})",
                where=url,
                remedy=f"download that file on a machine with network access and copy it to {path}, "
                "or convert it with fcos convert FILE and use the result",
            ) from error
    _check(path)
    return path


def _check(path: Path) -> None:
    expected = path.stem.rpartition("-")[2]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected):
        raise ModelError(
            f"not the published file: its SHA-256 starts with {digest[: len(expected)]}, not {expected}",
            where=path,
            remedy="delete the file and download it again",
        )
