"""The model name `coco`: fetched once, checked, converted and kept. Nothing here has a network."""

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
    """torch hub's folder of checkpoints, empty; the cache of fcos is empty too."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What answers when torch fetches a file: bytes, or an error. Gives the list of what was asked for."""

    def answer(content: bytes | Exception) -> list[str]:
        asked: list[str] = []

        def download(url: str, to: str, hash_prefix: str | None = None, progress: bool = True) -> None:
            asked.append(url)
            assert hash_prefix is not None
            if isinstance(content, Exception):
                raise content
            if not hashlib.sha256(content).hexdigest().startswith(hash_prefix):
                raise RuntimeError(f"invalid hash value (expected {hash_prefix})")
            Path(to).write_bytes(content)

        monkeypatch.setattr(torch.hub, "download_url_to_file", download)
        return asked

    return answer


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made file has not the published one's hash."""
    monkeypatch.setattr(zoo, "_check", lambda _: None)


def made(path: Path) -> Path:
    return pth(path, shapes_of(classes=91, backbone="resnet50", channels=256, convs=4))


@pytest.mark.usefixtures("accepted")
def test_the_file_is_converted_once_and_kept(
    hub: Path, tmp_path: Path, network: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    asked = network(URLError("no network"))
    made(hub / f"{NAME}.pth")
    path = coco_weights()
    assert path == tmp_path / "cache" / "fcos" / __version__ / f"{NAME}.safetensors"
    assert str(path) in capfd.readouterr().err
    found = load(path)
    assert (found.config.backbone, len(found.classes), found.classes.names[0]) == ("resnet50", 80, "person")
    (hub / f"{NAME}.pth").unlink()
    assert find_artifact("coco") == path  # from the cache
    assert asked == []


def test_it_is_fetched_by_torchvisions_enum_with_its_hash_checked(
    hub: Path, tmp_path: Path, network: Callable[..., list[str]]
) -> None:
    content = pth(tmp_path / "x.pth", {"a": torch.ones(1)}).read_bytes()
    prefix = hashlib.sha256(content).hexdigest()[:8]
    url = f"https://example.org/m-{prefix}.pth"
    enum: Any = SimpleNamespace(url=url)
    enum.get_state_dict = lambda **options: torch.hub.load_state_dict_from_url(url, **options)
    asked = network(content)
    assert fetch(enum) == hub / f"m-{prefix}.pth"
    assert asked == [url]
    assert fetch(enum).is_file()
    assert asked == [url]  # once


def test_what_is_fetched_is_torchvisions_published_file(hub: Path, network: Callable[..., list[str]]) -> None:
    asked = network(URLError("no network"))
    with pytest.raises(ModelError):
        coco_weights()
    assert asked == [detection.FCOS_ResNet50_FPN_Weights.COCO_V1.url]
    assert asked[0].endswith(f"{NAME}.pth")


@pytest.mark.parametrize("error", [URLError("no route to host"), ConnectionResetError("reset"), TimeoutError("slow")])
def test_without_a_network_it_says_which_file_to_put_where(
    error: Exception, hub: Path, network: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    network(error)
    with pytest.raises(ModelError, match="could not be fetched") as caught:
        find_artifact("coco")
    assert capfd.readouterr().out == ""  # stdout is data
    assert str(caught.value.where).endswith(f"{NAME}.pth")
    assert str(hub / f"{NAME}.pth") in str(caught.value.remedy)
    assert "fcos convert FILE" in str(caught.value.remedy)


def test_another_file_under_its_name_is_refused(hub: Path, network: Callable[..., list[str]]) -> None:
    network(URLError("no network"))
    made(hub / f"{NAME}.pth")
    with pytest.raises(ModelError, match=r"SHA-256 begins [0-9a-f]{8}, not 99b0c9b7") as caught:
        coco_weights()
    assert caught.value.where == str(hub / f"{NAME}.pth")


def test_a_wrong_download_is_refused(hub: Path, network: Callable[..., list[str]]) -> None:
    network(b"<html>sign in first</html>")
    with pytest.raises(ModelError, match="invalid hash value"):
        coco_weights()
    assert not list(hub.iterdir())
