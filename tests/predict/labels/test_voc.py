"""VOC sets that labels are added to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.predict.labels.made import prediction, write
from tests.predict.labels.test_writer import picture


@pytest.mark.parametrize("before", ["a\nk\xe4se\n", "a\r\nk\xe4se\r\n", "a\nk\xe4se"])
def test_the_other_lines_of_a_list_stay_as_they_are_in_any_encoding(before: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write("voc", out, prediction(picture(tmp_path / "in/a.jpg"), (1, 2, 9, 9, 0.9, 0)))
    train = out / "ImageSets/Main/train.txt"
    train.parent.mkdir(parents=True)
    train.write_bytes(before.encode("latin-1"))
    write("voc", out, prediction(picture(tmp_path / "in/ö.jpg", shade=1), (1, 2, 9, 9, 0.9, 0)), merge=True)
    added = "ö\n" if before.endswith("\n") else "\nö\n"
    assert train.read_bytes() == before.encode("latin-1") + added.encode()
