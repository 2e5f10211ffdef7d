"""Input sizes, batch sizes and images of the parity check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import DataError, UsageError
from fcos_cli.parity.inputs import (
    Photo,
    batch_at_size,
    batches_by_rule,
    choose_batches,
    choose_runs,
    choose_sizes,
    load_photos,
)

LETTERBOX = ResizeRule("letterbox", (320, 320))


def photo(width: int, height: int, name: str = "p.jpg") -> Photo:
    rows, columns = np.mgrid[:height, :width]
    return Photo(name, np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8))


def test_dynamic_sizes_are_checked_at_the_rules_size_other_aspect_ratios_and_the_smallest() -> None:
    sizes = choose_sizes((None, None, None), LETTERBOX)
    assert sizes == [(320, 320), (288, 320), (160, 416), (416, 160), (160, 160)]
    paper = choose_sizes((None, None, None), ResizeRule("shortest", (800, 1333)))
    assert paper[0] == (800, 1344)
    assert all(side % 32 == 0 and side >= 160 for size in paper for side in size)
    assert all(height % 128 and width % 128 for height, width in paper[1:])
    assert any(h > w for h, w in paper)


def test_a_fixed_size_is_the_only_one_and_a_fixed_side_is_kept() -> None:
    assert choose_sizes((None, 192, 256), LETTERBOX) == [(192, 256)]
    assert {height for height, _ in choose_sizes((None, 192, None), LETTERBOX)} == {192}


def test_sizes_stay_within_the_span_of_an_engine() -> None:
    sizes = choose_sizes((None, None, None), LETTERBOX, span=((192, 192), (352, 320)))
    assert sizes == [(320, 320), (288, 320), (192, 320), (352, 192), (192, 192)]


def test_dynamic_batches_are_checked_with_one_two_and_five() -> None:
    assert choose_batches((None, None, None)) == [1, 2, 5]
    assert choose_batches((4, None, None)) == [4]


def test_batches_of_large_images_are_run_at_the_first_size_at_which_they_are_not_too_large() -> None:
    paper = choose_sizes((None, None, None), ResizeRule("shortest", (800, 1333)))
    assert choose_runs(paper, [1, 2, 5]) == {size: [1, 2, 5] if size == paper[0] else [1] for size in paper}
    large = choose_sizes((None, None, None), ResizeRule("letterbox", (4096, 4096)))
    assert choose_runs(large, [1, 2, 5]) == {size: [1, 2, 5] if size == (160, 160) else [1] for size in large}
    assert choose_runs([(2048, 2048)], [1, 2, 5]) == {(2048, 2048): [1, 2]}
    assert choose_runs([(4096, 4096)], [8]) == {(4096, 4096): [8]}  # fixed by the file


def test_a_batch_has_distinct_images_even_with_few_photos() -> None:
    given = batch_at_size([photo(40, 30, "a"), photo(30, 40, "b")], (64, 96), 5, LETTERBOX)
    assert given.size == (64, 96)
    assert given.images.shape == (5, 3, 64, 96)
    assert given.names == ("a", "b", "a, mirrored", "b, mirrored", "a, upside down")
    assert len({image.tobytes() for image in given.images}) == 5
    eleven = batch_at_size([photo(40, 30, "a")], (64, 96), 11, LETTERBOX)
    assert len({image.tobytes() for image in eleven.images}) == 11


def test_shown_images_exclude_the_padding() -> None:
    given = batch_at_size([photo(40, 20)], (64, 80), 1, LETTERBOX)
    assert given.shown[0].shape == (40, 80, 3)
    assert (given.images[0, :, 40:] == 114).all()


def test_images_are_resized_by_the_models_own_rule_and_the_last_batch_is_filled() -> None:
    photos = [photo(40, 30, name) for name in "abc"]
    groups = batches_by_rule(photos, 2, ResizeRule("letterbox", (64, 64)))
    assert [group.names for group in groups] == [("a", "b"), ("c", "a")]
    assert {group.size for group in groups} == {(64, 64)}


def test_photos_are_named_after_their_file(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 6)).save(tmp_path / "x.png")
    (only,) = load_photos([tmp_path / "x.png"])
    assert only.name == "x.png"
    assert only.pixels.shape == (6, 8, 3)
    with pytest.raises(DataError):
        load_photos([tmp_path / "y.png"])
    with pytest.raises(UsageError, match="at least one image"):
        load_photos([])
