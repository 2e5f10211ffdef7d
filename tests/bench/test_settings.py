"""Invalid settings are rejected before anything is started."""

from pathlib import Path

import pytest

from fcos_cli.bench.settings import MAX_PICTURES, Settings, check_settings, choose_pictures, parse_batches
from fcos_cli.errors import DataError, UsageError
from fcos_cli.resources import ASSETS

PHOTO = str(ASSETS / "photos" / "cat.jpg")


def test_batch_sizes_are_a_list() -> None:
    assert parse_batches("1") == (1,)
    assert parse_batches("4, 1,4") == (4, 1)
    for wrong in ("", "0", "1,", "two", "-1"):
        with pytest.raises(UsageError, match="batch sizes"):
            parse_batches(wrong)


def test_the_demo_photos_are_the_default() -> None:
    assert [Path(picture).name for picture in choose_pictures([])] == ["astronaut.jpg", "cat.jpg"]


def test_too_many_images_are_cut_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(choose_pictures([PHOTO] * (MAX_PICTURES + 3))) == MAX_PICTURES
    assert str(MAX_PICTURES) in capsys.readouterr().err


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
