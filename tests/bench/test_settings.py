"""Invalid settings are rejected before anything is started."""

import io
from pathlib import Path

import pytest

from fcos_cli.bench.settings import (
    MAX_PICTURES,
    Settings,
    check_settings,
    choose_pictures,
    parse_backends,
    parse_batches,
)
from fcos_cli.errors import DataError, UsageError
from fcos_cli.resources import ASSETS
from tests.predict.clips import write_clip

PHOTO = str(ASSETS / "photos" / "cat.jpg")


def test_batch_sizes_are_a_list() -> None:
    assert parse_batches("1") == (1,)
    assert parse_batches("4, 1,4") == (4, 1)
    assert parse_batches("65536") == (65536,)
    for wrong in ("", "0", "1,", "two", "-1", "65537", "1" * 5000):
        with pytest.raises(UsageError, match="batch sizes"):
            parse_batches(wrong)


def test_backends_are_a_list() -> None:
    assert parse_backends("onnxruntime, openvino") == ("onnxruntime", "openvino")
    assert parse_backends(None) == (None,)


def test_the_demo_photos_are_the_default() -> None:
    assert [Path(picture).name for picture in choose_pictures([])] == ["astronaut.jpg", "cat.jpg"]


def test_too_many_images_are_cut_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(choose_pictures([PHOTO] * (MAX_PICTURES + 3))) == MAX_PICTURES
    assert str(MAX_PICTURES) in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 1])
def test_what_is_no_image_file_is_one_error_that_names_it_and_the_usable_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 3, size=(32, 32))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(Path(PHOTO).read_bytes()))))
    others = [PHOTO][:code]
    remedy = f"leave it out; others can be used: {PHOTO}" if others else "name image files or folders"
    for source, where in ((str(clip), str(clip)), ("-", "stdin"), ("camera:0", "camera:0")):
        with pytest.raises(UsageError, match="image files only") as caught:
            choose_pictures([source, *others])
        assert caught.value.where == f"--images {where}"
        assert caught.value.remedy == ("name image files or folders" if source == "camera:0" else remedy)


def test_a_missing_image_among_others_is_named() -> None:
    with pytest.raises(DataError, match="no such file") as caught:
        choose_pictures([PHOTO, "none.jpg"])
    assert (caught.value.where, caught.value.remedy) == ("none.jpg", f"leave it out; others can be used: {PHOTO}")


def test_stdin_may_list_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(f"{PHOTO}\n".encode()))))
    assert choose_pictures(["-"]) == (PHOTO,)


def test_the_jobs_are_all_combinations() -> None:
    jobs = Settings(("a", "b"), ("p",), backends=("onnxruntime", "openvino"), batches=(1, 4), size=(32, 48)).jobs()
    assert len(jobs) == 8
    assert {job.size for job in jobs} == {(32, 48)}
    assert len(set(jobs)) == 8


@pytest.mark.parametrize(
    "changes", [{"backends": ("tensorflow",)}, {"threads": 0}, {"rounds": 0}, {"batches": (0,)}], ids=str
)
def test_wrong_settings_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        check_settings(Settings(("m",), (PHOTO,), **changes))  # type: ignore[arg-type]


def test_an_unreadable_image_is_refused(tmp_path: Path) -> None:
    check_settings(Settings(("m",), (PHOTO,)))
    with pytest.raises(DataError):
        check_settings(Settings(("m",), (PHOTO, str(tmp_path / "none.jpg"))))
    with pytest.raises(DataError):
        check_settings(Settings(("m",), ()))
