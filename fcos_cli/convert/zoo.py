"""Published weights by name, fetched once and on the user's word: `coco`, torchvision's FCOS, converted and cached."""

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
    """Where converted weights are kept: fcos/VERSION/ in XDG_CACHE_HOME or ~/.cache.

    A newer version converts anew: it may know a convention that this one does not.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fcos" / __version__


def coco_weights() -> Path:
    """The artifact of torchvision's `FCOS_ResNet50_FPN_Weights.COCO_V1` (80 classes, box AP 39.2 as published).

    Fetched by torchvision into torch hub's folder where it is not there yet. Raises ModelError without a network, or
    for a file whose hash is wrong.
    """
    from torchvision.models.detection import FCOS_ResNet50_FPN_Weights as Published

    from fcos_cli.convert.run import convert

    name = Path(Published.COCO_V1.url).name
    converted = cache_folder() / f"{Path(name).stem}.safetensors"
    if not converted.is_file():
        fetched = fetch(Published.COCO_V1)
        save(converted, convert(fetched, source="torchvision").artifact)
        say(f"converted: {converted}")
    return converted


def fetch(weights: object) -> Path:
    """The file of torchvision's `weights`, from torch hub's folder, or fetched into it by torchvision itself.

    Its name holds the first digits of its SHA-256, which is checked either way.
    """
    import torch

    url = str(getattr(weights, "url"))  # noqa: B009 - an enum of torchvision's, which it does not type
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.is_file():
        say(f"fetching {url}")
        try:
            with redirect_stdout(sys.stderr):  # torch tells people on stdout, which is for data
                weights.get_state_dict(  # type: ignore[attr-defined]
                    check_hash=True, progress=sys.stderr.isatty(), map_location="cpu", weights_only=True
                )
        except (URLError, OSError, RuntimeError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise ModelError(
                f"the weights `coco` could not be fetched ({reason})",
                where=url,
                remedy=f"fetch that file on a machine with a network and put it there: {path}; "
                "or convert it where it lies: fcos convert FILE, and name the result",
            ) from error
    _check(path)
    return path


def _check(path: Path) -> None:
    wanted = path.stem.rpartition("-")[2]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(wanted):
        raise ModelError(
            f"this is not the published file: its SHA-256 begins {found[: len(wanted)]}, not {wanted}",
            where=path,
            remedy="delete it and fetch it again",
        )
