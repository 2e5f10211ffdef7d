"""The model name `coco`: downloaded once, checked, converted and cached. No test uses the network."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torchvision.models import detection

from fcos_cli import __version__
from fcos_cli.convert import zoo
from fcos_cli.convert.zoo import coco_weights, fetch
from fcos_cli.errors import ModelError
from fcos_cli.model.artifact import load
from fcos_cli.runtime.open import find_artifact
from tests.convert.foreign import pth, shapes_of

NAME = "fcos_resnet50_fpn_coco-99b0c9b7"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch hub's checkpoint folder, empty; the cache of fcos is empty too."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Replace torch's download with bytes or an error. Returns the list of requested URLs."""

    def install(content: bytes | Exception) -> list[str]:
        urls: list[str] = []

        def download(url: str, to: str, hash_prefix: str | None = None, progress: bool = True) -> None:
            urls.append(url)
            assert hash_prefix is not None
            if isinstance(content, Exception):
                raise content
            if not hashlib.sha256(content).hexdigest().startswith(hash_prefix):
                raise RuntimeError(f"invalid hash value (expected {hash_prefix})")
            Path(to).write_bytes(content)

        monkeypatch.setattr(torch.hub, "download_url_to_file", download)
        return urls

    return install


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the hash check, which the generated file would fail."""
    monkeypatch.setattr(zoo, "_check", lambda _: None)


def made(path: Path) -> Path:
    return pth(path, shapes_of(classes=91, backbone="resnet50", channels=256, convs=4))


@pytest.mark.usefixtures("accepted")
def test_file_is_converted_once_and_cached(
    hub: Path, tmp_path: Path, network: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    urls = network(URLError("no network"))
    made(hub / f"{NAME}.pth")
    path = coco_weights()
    assert path == tmp_path / "cache" / "fcos" / __version__ / f"{NAME}.safetensors"
    assert str(path) in capfd.readouterr().err
    found = load(path)
    assert (found.config.backbone, len(found.classes), found.classes.names[0]) == ("resnet50", 80, "person")
    (hub / f"{NAME}.pth").unlink()
    assert find_artifact("coco") == path  # from the cache
    assert urls == []


def test_download_uses_torchvision_and_checks_the_hash(
    hub: Path, tmp_path: Path, network: Callable[..., list[str]]
) -> None:
    content = pth(tmp_path / "x.pth", {"a": torch.ones(1)}).read_bytes()
    prefix = hashlib.sha256(content).hexdigest()[:8]
    url = f"https://example.org/m-{prefix}.pth"
    enum: Any = SimpleNamespace(url=url)
    enum.get_state_dict = lambda **options: torch.hub.load_state_dict_from_url(url, **options)
    urls = network(content)
    assert fetch(enum) == hub / f"m-{prefix}.pth"
    assert urls == [url]
    assert fetch(enum).is_file()
    assert urls == [url]  # once


def test_published_file_of_torchvision_is_requested(hub: Path, network: Callable[..., list[str]]) -> None:
    urls = network(URLError("no network"))
    with pytest.raises(ModelError):
        coco_weights()
    assert urls == [detection.FCOS_ResNet50_FPN_Weights.COCO_V1.url]
    assert urls[0].endswith(f"{NAME}.pth")


@pytest.mark.parametrize("error", [URLError("no route to host"), ConnectionResetError("reset"), TimeoutError("slow")])
def test_without_a_network_the_error_names_the_file_and_its_place(
    error: Exception, hub: Path, network: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    network(error)
    with pytest.raises(ModelError, match="could not be downloaded") as caught:
        find_artifact("coco")
    assert capfd.readouterr().out == ""  # stdout is data
    assert str(caught.value.where).endswith(f"{NAME}.pth")
    assert str(hub / f"{NAME}.pth") in str(caught.value.remedy)
    assert "fcos convert FILE" in str(caught.value.remedy)


def test_file_with_a_wrong_hash_is_refused(hub: Path, network: Callable[..., list[str]]) -> None:
    network(URLError("no network"))
    made(hub / f"{NAME}.pth")
    with pytest.raises(ModelError, match=r"SHA-256 starts with [0-9a-f]{8}, not 99b0c9b7") as caught:
        coco_weights()
    assert caught.value.where == str(hub / f"{NAME}.pth")


def test_download_with_a_wrong_hash_is_refused(hub: Path, network: Callable[..., list[str]]) -> None:
    network(b"<html>sign in first</html>")
    with pytest.raises(ModelError, match="invalid hash value"):
        coco_weights()
    assert not list(hub.iterdir())
