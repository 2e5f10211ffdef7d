"""Augmentation: colored rectangles on grey show whether the boxes still fit after each transform."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fcos_cli.data.augment.transforms import MIN_VISIBLE, Augmentation

COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
GREY = 114
STILL: dict[str, Any] = {
    "flip": 0.0,
    "turn": 0.0,
    "crop": 0.0,
    "zoom_out": 0.0,
    "zoom_out_max": 2.0,
    "scale": (1.0, 1.0),
    "colour": 0.0,
}
ALL: dict[str, Any] = {**STILL, "flip": 0.5, "turn": 0.5, "crop": 0.7, "zoom_out": 0.5, "scale": (0.6, 1.6)}

Example = tuple[Tensor, Tensor, Tensor, Tensor]


def augment(example: Example, *, seed: int = 0, size: tuple[int, int] = (64, 96), **settings: Any) -> Example:
    return Augmentation(size=size, **{**STILL, **settings})(*example, random=np.random.default_rng(seed))


def drawn(height: int = 120, width: int = 160, boxes: list[list[int]] | None = None) -> Example:
    """A grey image; box i is filled with colour i and has class i; every second one is a crowd."""
    boxes = [[10, 20, 60, 70], [90, 10, 150, 50], [70, 80, 100, 115]] if boxes is None else boxes
    image = torch.full((3, height, width), GREY, dtype=torch.uint8)
    for colour, (x1, y1, x2, y2) in zip(COLOURS, boxes, strict=False):
        image[:, y1:y2, x1:x2] = colour[:, None, None]
    classes = torch.arange(len(boxes))
    return image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), classes, classes % 2 == 1


def coloured(image: Tensor, index: int) -> list[float] | None:
    """The box around the pixels closer to color `index` than to grey, or None."""
    others = [channel for channel in range(3) if channel != index]
    mask = image[index].int() - image[others].int().amax(0) > 127
    ys, xs = mask.nonzero(as_tuple=True)
    return [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1] if len(xs) else None


def assert_boxes_fit(example: Example) -> None:
    image, boxes, classes, _ = example
    for box, index in zip(boxes.tolist(), classes.tolist(), strict=True):
        seen = coloured(image, index)
        thin = min(box[2] - box[0], box[3] - box[1]) < 2.5  # may vanish when resized
        assert thin or seen is not None
        if seen is not None:
            assert box == pytest.approx(seen, abs=1.6)


@pytest.mark.parametrize("side", [(64, 48), (32, 96), (128, 96), (30, 200), (400, 200)], ids=str)
def test_without_augmentation_the_image_is_fitted_into_the_canvas(side: tuple[int, int]) -> None:
    height, width = side
    image, boxes, classes, _ = augment(drawn(height, width, [[0, 0, width, height]]))
    assert image.shape == (3, 64, 96)
    factor = min(64 / height, 96 / width)
    x1, y1, x2, y2 = boxes[0].tolist()
    assert (x2 - x1, y2 - y1) == (int(width * factor), int(height * factor))
    assert coloured(image, int(classes[0])) == [x1, y1, x2, y2]
    assert image[:, :, : int(x1)].unique().tolist() in ([], [GREY])


def test_an_image_of_the_canvas_size_is_unchanged() -> None:
    example = drawn(64, 96, [[3, 5, 40, 50]])
    for before, after in zip(example, augment(example), strict=True):
        assert torch.equal(before, after)
        assert type(after) is Tensor


def test_flip_mirrors_image_and_boxes() -> None:
    example = drawn(64, 96, [[3, 5, 40, 50]])
    image, boxes, _, _ = augment(example, flip=1.0)
    assert torch.equal(image, example[0].flip(-1))
    assert boxes.tolist() == [[56, 5, 93, 50]]


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ((60, 80), {8.0, 6.0}),  # 4:3 fits whole, at 3/4 of its usual scale
        ((20, 160), {8.0, 6.0}),  # 8:1 would fit at 1/8, and is cut off instead
    ],
)
def test_long_images_are_cut_off_rather_than_shrunk_by_quarter_turns(size: tuple[int, int], sides: set[float]) -> None:
    height, width = size
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    box = torch.tensor([[x, height / 2 - 4, x + 8, height / 2 + 4] for x in range(0, width, 8)], dtype=torch.float32)
    labels = torch.zeros(len(box), dtype=torch.int64)
    found = set()
    for seed in range(8):
        _, boxes, _, _ = augment((image, box, labels, labels > 0), seed=seed, size=size, turn=1.0)
        found.add(round(float((boxes[:, 2:] - boxes[:, :2]).max()), 1))
    assert found == sides


def test_image_and_boxes_are_rotated_by_quarter_turns() -> None:
    example = drawn(64, 64, [[3, 5, 40, 50]])
    turned = {tuple(augment(example, seed=seed, size=(64, 64), turn=1.0)[1][0].tolist()) for seed in range(20)}
    assert turned == {(5, 24, 50, 61), (24, 14, 61, 59), (14, 3, 59, 40)}
    wide = drawn(64, 96, [[3, 5, 40, 50]])
    image, boxes, _, _ = augment(wide, seed=1, size=(96, 96), turn=1.0)
    assert coloured(image, 0) == pytest.approx(boxes[0].tolist(), abs=1.6)


@pytest.mark.parametrize(
    "settings",
    [
        {"flip": 1.0},
        {"turn": 1.0},
        {"crop": 1.0},
        {"zoom_out": 1.0},
        {"scale": (0.5, 0.6)},
        {"scale": (1.5, 2.0)},
        ALL,
    ],
    ids=["flip", "turn", "crop", "zoom-out", "smaller", "larger", "all"],
)
def test_boxes_fit_what_is_drawn_and_stay_inside(settings: dict[str, Any]) -> None:
    seen = 0
    for seed in range(25):
        example = augment(drawn(), seed=seed, **settings)
        image, boxes, classes, ignore = example
        assert image.shape == (3, 64, 96)
        assert image.dtype == torch.uint8
        assert boxes.dtype == torch.float32
        assert boxes.shape == (len(classes), 4)
        assert bool((boxes >= 0).all())
        assert bool((boxes[:, 0::2] <= 96).all())
        assert bool((boxes[:, 1::2] <= 64).all())
        assert bool((boxes[:, 2:] - boxes[:, :2] >= 1).all())
        assert_boxes_fit(example)
        assert bool(ignore[classes % 2 == 1].all())  # flags stay with their boxes; hidden boxes get one
        seen += len(boxes)
    assert seen > 20


def test_all_augmentations_are_applied() -> None:
    for settings in ({"crop": 1.0}, {"zoom_out": 1.0}, {"scale": (0.5, 1.5)}):
        assert len({augment(drawn(64, 96), seed=seed, **settings)[0].numpy().tobytes() for seed in range(12)}) >= 8


def test_colours_change_and_boxes_do_not() -> None:
    example = drawn(64, 96, [[3, 5, 40, 50]])
    answers = [augment(example, seed=seed, colour=1.0) for seed in range(8)]
    assert all(torch.equal(answer[1], example[1]) for answer in answers)
    assert any(not torch.equal(answer[0], example[0]) for answer in answers)


def test_an_image_without_boxes_passes_every_augmentation() -> None:
    image = torch.full((3, 50, 70), 9, dtype=torch.uint8)
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    for seed in range(15):
        out, boxes, classes, ignore = augment((image, *nothing), seed=seed, **{**ALL, "crop": 1.0, "colour": 1.0})
        assert out.shape == (3, 64, 96)
        assert (boxes.shape, classes.shape, ignore.shape) == ((0, 4), (0,), (0,))
        assert (boxes.dtype, classes.dtype, ignore.dtype) == (torch.float32, torch.int64, torch.bool)


@pytest.mark.parametrize("side", [(1, 1), (2, 2), (1, 400), (400, 1), (2, 3000), (3000, 2), (900, 1200)], ids=str)
@pytest.mark.parametrize("size", [(64, 96), (32, 320)], ids=str)
def test_images_of_extreme_shapes_get_the_input_size(side: tuple[int, int], size: tuple[int, int]) -> None:
    height, width = side
    example = drawn(height, width, [[0, 0, width, height]])
    for seed in range(8):
        image, boxes, classes, _ = augment(example, seed=seed, size=size, **{**ALL, "crop": 1.0})
        assert image.shape == (3, *size)
        assert len(boxes) == len(classes) <= 1


def test_boxes_of_which_little_is_visible_are_ignored() -> None:
    shown = {True: 0, False: 0}
    for seed in range(60):
        _, boxes, _, ignore = augment(drawn(64, 96, [[30, 20, 60, 40]]), seed=seed, scale=(3.0, 3.0))
        for (x1, y1, x2, y2), hidden in zip(boxes.tolist(), ignore.tolist(), strict=True):
            share = (x2 - x1) * (y2 - y1) / (90 * 60)
            # regions are whole pixels, so that a factor of 3 can become 2.8
            assert share == pytest.approx(MIN_VISIBLE, rel=0.12) or hidden == (share < MIN_VISIBLE)
            shown[hidden] += 1
    assert min(shown.values()) > 5


def test_the_example_depends_on_the_seed() -> None:
    one, same, other = (
        augment(
            drawn(),
            seed=seed,
            **ALL,
        )
        for seed in (5, 5, 6)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])


def test_the_input_is_not_changed() -> None:
    example = drawn()
    copies = [part.clone() for part in example]
    augment(example, **{**ALL, "colour": 1.0})
    assert all(torch.equal(a, b) for a, b in zip(example, copies, strict=True))
