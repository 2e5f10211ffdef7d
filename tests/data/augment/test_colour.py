"""Color distortion: its matrices, and what it does to pixels."""

import colorsys

import numpy as np
import pytest
import torch

from fcos_cli.data.augment.colour import GREY, distort_colours, rotate_hue, saturate


def test_saturation_moves_colors_to_and_from_their_luma() -> None:
    colour = np.array([200.0, 100.0, 50.0])
    luma = GREY @ colour
    assert saturate(0) @ colour == pytest.approx(np.full(3, luma))
    assert saturate(1) @ colour == pytest.approx(colour)
    assert saturate(1.5) @ colour == pytest.approx(luma + 1.5 * (colour - luma))


@pytest.mark.parametrize("turns", [-0.05, 0.02, 1 / 3])
def test_hue_is_rotated_around_grey(turns: float) -> None:
    assert rotate_hue(turns) @ np.full(3, 90.0) == pytest.approx(np.full(3, 90.0))
    red = np.array([1.0, 0.2, 0.2])
    turned = rotate_hue(turns) @ red
    assert turned.sum() == pytest.approx(red.sum())
    assert (colorsys.rgb_to_hsv(*turned)[0] - turns + 0.5) % 1 == pytest.approx(0.5, abs=0.02)


def test_a_third_of_a_turn_makes_red_green() -> None:
    assert rotate_hue(1 / 3) @ np.array([1.0, 0, 0]) == pytest.approx(np.array([0, 1.0, 0]))


def test_an_image_is_changed_a_little_and_stays_an_image() -> None:
    image = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    changes = []
    for seed in range(100):
        before = image.clone()
        changed = distort_colours(image, random=np.random.default_rng(seed))
        assert torch.equal(image, before)
        assert (changed.shape, changed.dtype) == (image.shape, torch.uint8)
        changes.append((changed.float() - image.float()).abs().mean().item())
    assert 1 <= sum(change == 0 for change in changes) <= 15  # 1 in 16 is left alone
    assert 8 < float(np.mean(changes)) < 40


def test_without_changes_the_bytes_stay() -> None:
    class Never:
        def random(self, count: int) -> np.ndarray:  # type: ignore[type-arg]
            return np.ones(count)

        def uniform(self, low: float, high: float, count: int) -> np.ndarray:  # type: ignore[type-arg]
            return np.full(count, high - low)

    image = torch.arange(240, dtype=torch.uint8).reshape(3, 8, 10)
    assert torch.equal(distort_colours(image, random=Never()), image)  # type: ignore[arg-type]
