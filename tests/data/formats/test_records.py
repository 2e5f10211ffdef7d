"""Cleaning: the Samples are valid whatever a reader passes in."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fcos_cli.data.formats import records
from fcos_cli.data.formats.file_index import FileIndex
from fcos_cli.data.formats.notes import Notes
from fcos_cli.data.formats.records import ImageRecord, Rows, check_sizes, samples
from fcos_cli.errors import DataError

PICTURES = [ImageRecord(Path("a.png"), 7, 100, 50), ImageRecord(Path("b.png"), 9, 10, 10)]


def test_boxes_are_assigned_to_their_images_in_order() -> None:
    rows = Rows.of([(1, (0, 0, 5, 5), 0, False), (0, (1, 1, 2, 2), 1, True), (1, (2, 2, 4, 4), 2, False)])
    first, second = samples(PICTURES, rows, notes := Notes())
    assert first.boxes.tolist() == [[1, 1, 2, 2]]
    assert first.ignore.tolist() == [True]
    assert second.classes.tolist() == [0, 2]
    assert second.areas.tolist() == [25, 4]
    assert notes.findings() == []


def test_images_without_any_boxes() -> None:
    for sample in samples(PICTURES, Rows.of([]), Notes()):
        assert sample.boxes.shape == (0, 4)
        assert (sample.boxes.dtype, sample.classes.dtype) == (np.float32, np.int64)
        assert (sample.ignore.dtype, sample.areas.dtype) == (np.bool_, np.float64)


def test_no_images_give_no_samples() -> None:
    assert samples([], Rows.of([]), Notes()) == []


@pytest.mark.parametrize("count", [1, 199, 200, 201, 399, 5000])
def test_the_sizes_of_up_to_200_images_are_checked(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Path] = []
    monkeypatch.setattr(records, "size_of", lambda path, _: looked_at.append(path))
    check_sizes([ImageRecord(Path(f"{number}.png"), number, 10, 10) for number in range(count)], Notes())
    assert len(set(looked_at)) == len(looked_at) == min(count, 200)


@pytest.mark.parametrize(("size", "refused"), [((101, 50), False), ((101, 51), False), ((110, 55), True)])
def test_sizes_that_differ_by_rounding_are_no_error(
    size: tuple[int, int], refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "size_of", lambda *_: size)
    images, notes = [ImageRecord(Path("a.png"), number, 100, 50) for number in range(3)], Notes()
    with pytest.raises(DataError, match=r"1\.1 times") if refused else nullcontext():
        check_sizes(images, notes)
    assert [finding.id for finding in notes.findings()] == ["size-mismatch"]


def test_the_error_about_resized_images_names_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "size_of", lambda path, _: (100, 50) if path.name == "0.png" else (50, 25))
    images = [ImageRecord(Path(f"{number}.png"), number, 100, 50) for number in range(4)]
    with pytest.raises(DataError, match=r"0\.5 times") as caught:
        check_sizes(images, Notes())
    assert caught.value.where == "3 of 4 images, for example 1.png"


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.tuples(*[st.floats(-200, 200, width=32) | st.sampled_from([np.nan, np.inf, 1e300])] * 4),
            st.integers(0, 3),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_every_box_is_valid_or_counted_as_dropped(rows) -> None:
    finite = [box for _, box, _, _ in rows if np.isfinite(box).all()]
    assume(len(finite) < 3 or np.abs(finite).max() > 1)  # otherwise they are taken for shares of the image
    notes = Notes()
    result = samples(PICTURES, Rows.of(rows), notes)
    kept = 0
    for image, sample in zip(PICTURES, result, strict=True):
        kept += len(sample.boxes)
        assert np.isfinite(sample.boxes).all()
        assert (sample.boxes >= 0).all()
        assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()
        assert (sample.boxes[:, 2:] <= [image.width, image.height]).all()
        assert (sample.areas > 0).all()
        assert sample.boxes.dtype == np.float32
        assert len(sample.boxes) == len(sample.classes) == len(sample.ignore) == len(sample.areas)
    dropped = sum(int(f.message.rpartition(": ")[2]) for f in notes.findings() if f.id != "box-clipped")
    assert kept + dropped == len(rows)


def test_file_index_finds_files_and_images_by_stem(tmp_path: Path) -> None:
    for name in ("a.JPG", "a.xml", "._a.jpg", "b.txt"):
        (tmp_path / name).touch()
    index = FileIndex()
    assert tmp_path / "a.xml" in index
    assert tmp_path / "c.xml" not in index
    assert tmp_path / "none" / "c.xml" not in index
    assert index.images(tmp_path) == {"a": "a.JPG"}
    assert index.images(tmp_path / "none") == {}
