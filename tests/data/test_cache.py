"""Decoded images in shared memory: the same examples, decoded once, also by several processes."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fcos_cli.data import cache, tiling
from fcos_cli.data.augment.transforms import Augmentation
from fcos_cli.data.cache import ImageCache, reduced_size
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.data.tiling import Tiling, cut
from fcos_cli.data.training_set import Example, Key, TrainingSet, collate
from tests.tiny import CLASSES

AUGMENTATION = Augmentation(
    size=(40, 40), flip=0.5, turn=0.0, crop=0.5, zoom_out=0.3, zoom_out_max=2.0, scale=(0.8, 1.2), colour=0.0
)


@pytest.fixture
def samples(shapes: Path) -> Sequence[Sample]:
    return read_dataset(shapes, split="train").samples[:5]


def cache_of(samples: Sequence[Sample], longest: int = 80) -> ImageCache:
    found = ImageCache.for_samples(samples, longest=longest)
    assert found is not None
    return found


@pytest.mark.parametrize("longest", [80, 48])
def test_examples_are_the_same_with_and_without_a_cache(samples: Sequence[Sample], longest: int) -> None:
    plain = TrainingSet(samples, AUGMENTATION, longest=longest)
    cached = TrainingSet(samples, AUGMENTATION, longest=longest, cache=cache_of(samples, longest))
    for _ in range(2):  # decoded, then from memory
        for index in range(len(samples)):
            key = Key(index, seed=index)
            a, b = plain[key], cached[key]
            assert isinstance(a, Example)
            assert isinstance(b, Example)
            assert torch.equal(a.image, b.image)
            torch.testing.assert_close(a.boxes, b.boxes)


def test_tiles_of_an_image_have_their_own_places_in_the_cache(samples: Sequence[Sample]) -> None:
    whole = Dataset(list(samples), CLASSES, "coco", "train", Path("x"), "")
    tiles = cut(whole, Tiling(40), seed=0).samples
    assert len({tile.image for tile in tiles}) < len(tiles)
    plain, cached = (TrainingSet(tiles, AUGMENTATION, longest=80, cache=store) for store in (None, cache_of(tiles)))
    for _ in range(2):
        for index in range(len(tiles)):
            a, b = plain[Key(index, index)], cached[Key(index, index)]
            assert isinstance(a, Example)
            assert isinstance(b, Example)
            assert torch.equal(a.image, b.image)


def test_each_file_is_decoded_once_by_all_processes(
    samples: Sequence[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tiling.open_image

    def counted(path: Path) -> np.ndarray:  # type: ignore[type-arg]
        (tmp_path / f"{path.name}-{os.getpid()}-{len(list(tmp_path.iterdir()))}").touch()
        return opened(path)

    monkeypatch.setattr(tiling, "open_image", counted)
    data = TrainingSet(samples, AUGMENTATION, longest=80, cache=cache_of(samples))
    for epoch in range(3):  # each epoch has new processes
        keys = [[Key(index, seed=epoch)] for index in range(len(samples))]
        assert len(list(DataLoader(data, batch_sampler=keys, collate_fn=collate, num_workers=2))) == 5
    assert len(list(tmp_path.iterdir())) == 5


def test_an_image_of_another_size_than_announced_is_used_but_not_stored(
    samples: Sequence[Sample], tmp_path: Path
) -> None:
    path = tmp_path / "other.png"
    Image.new("RGB", (50, 30), (9, 8, 7)).save(path)
    store = cache_of([replace(samples[0], image=path)])
    calls = []
    for _ in range(2):
        image = store.get(0, lambda: calls.append(1) or np.zeros((30, 50, 3), np.uint8))  # type: ignore[func-returns-value]
        assert image.shape == (30, 50, 3)
    assert len(calls) == 2


def test_changing_a_returned_image_does_not_change_the_cache(samples: Sequence[Sample]) -> None:
    store = cache_of(samples)
    height, width = store.shapes[0]
    for _ in range(3):
        image = store.get(0, lambda: np.full((height, width, 3), 5, np.uint8))
        assert (image == 5).all()
        image[:] = 0


def test_there_is_no_cache_if_the_images_do_not_fit(samples: Sequence[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    need = sum(3 * height * width for height, width in cache_of(samples).shapes)
    monkeypatch.setattr(cache, "available_memory", lambda: 4 * need + 4)
    assert ImageCache.for_samples(samples, longest=80) is not None
    assert ImageCache.for_samples(samples, longest=80, processes=2) is None
    monkeypatch.setattr(cache, "available_memory", lambda: 4 * need)
    assert ImageCache.for_samples(samples, longest=80) is None
    assert ImageCache.for_samples([], longest=80) is None


def test_there_is_no_cache_if_loader_processes_cannot_inherit_it(
    samples: Sequence[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "START_METHOD", None)
    assert ImageCache.for_samples(samples, longest=80) is None


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [((30, 40), 80, (30, 40)), ((600, 800), 400, (300, 400)), ((1, 9000), 640, (1, 640))],
)
def test_reduced_size(size: tuple[int, int], longest: int, expected: tuple[int, int]) -> None:
    assert reduced_size(*size, longest=longest) == expected
