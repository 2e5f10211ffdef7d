"""Training data: the order depends on seed and epoch only, and a bad file is skipped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from fcos_cli.data.augment.transforms import Augmentation
from fcos_cli.data.images import open_image
from fcos_cli.data.samples import Sample
from fcos_cli.data.training_set import (
    Batch,
    EpochBatches,
    Example,
    Key,
    TrainingSet,
    Unreadable,
    batches_per_epoch,
    collate,
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Six images with 0…5 boxes; the last box of each is a crowd."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    listed = []
    for number in range(6):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(path)
        low = rng.integers(0, 30, (number, 2))
        listed.append(
            Sample(
                image=path,
                image_id=number,
                width=70,
                height=50,
                boxes=np.hstack([low, low + 18]).astype(np.float32),
                classes=np.arange(number, dtype=np.int64),
                ignore=np.arange(number) == number - 1,
                areas=np.full(number, 324.0),
            )
        )
    return listed


def augmentation() -> Augmentation:
    return Augmentation(
        size=(64, 64), flip=0.5, turn=0.0, crop=0.5, zoom_out=0.5, zoom_out_max=1.5, scale=(0.8, 1.2), colour=0.5
    )


@pytest.fixture(scope="module")
def training(samples: list[Sample]) -> TrainingSet:
    return TrainingSet(samples, augmentation(), longest=128)


def equal(a: Batch, b: Batch) -> bool:
    tensors = zip((a.images, *a.truth), (b.images, *b.truth), strict=True)
    return a.names == b.names and all(torch.equal(x, y) for x, y in tensors)


def numbers(batches: EpochBatches) -> list[int]:
    return [key.number for batch in batches for key in batch]


def test_an_example_has_the_input_size_its_boxes_and_its_name(training: TrainingSet) -> None:
    example = training[Key(3, 0)]
    assert isinstance(example, Example)
    assert example.image.shape == (3, 64, 64)
    assert example.image.dtype == torch.uint8
    assert len(example.boxes) == len(example.classes) == len(example.ignore) <= 3
    assert example.name.endswith("3.png")


def test_the_same_key_gives_the_same_example_whatever_came_before(training: TrainingSet) -> None:
    first = training[Key(4, 123)]
    torch.manual_seed(99)
    torch.rand(7)
    training[Key(1, 5)]
    again = training[Key(4, 123)]
    assert all(torch.equal(a, b) for a, b in zip(first[:4], again[:4], strict=True))
    other = training[Key(4, 124)]
    assert not torch.equal(first[0], other[0])


def test_making_an_example_keeps_the_callers_random_state(training: TrainingSet) -> None:
    before = torch.get_rng_state()
    training[Key(2, 7)]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork, from Python 3.12 on
def test_loader_processes_make_the_same_batches_as_the_main_process(training: TrainingSet) -> None:
    keys = EpochBatches(6, batch=2, seed=1, epoch=0)
    here = [collate([training[key] for key in batch]) for batch in keys]
    there = list(DataLoader(training, batch_sampler=keys, collate_fn=collate, num_workers=2))
    assert len(here) == len(there) == 3
    assert all(equal(a, b) for a, b in zip(here, there, strict=True))


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    def order(*, seed: int, epoch: int) -> list[list[Key]]:
        return list(EpochBatches(20, batch=5, seed=seed, epoch=epoch))

    torch.manual_seed(0)
    np.random.seed(0)
    one = order(seed=1, epoch=2)
    torch.manual_seed(5)
    assert order(seed=1, epoch=2) == one
    assert order(seed=2, epoch=2) != one
    assert order(seed=1, epoch=3) != one


def test_every_image_occurs_once_per_epoch_with_a_new_seed() -> None:
    epochs = [EpochBatches(12, batch=4, seed=0, epoch=epoch) for epoch in (0, 1)]
    assert [sorted(numbers(epoch)) for epoch in epochs] == [list(range(12))] * 2
    seeds = [{key.seed for batch in epoch for key in batch} for epoch in epochs]
    assert len(seeds[0]) == len(seeds[1]) == 12
    assert not seeds[0] & seeds[1]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4))
def test_ranks_split_the_images_without_overlap_into_equally_many_steps(count: int, batch: int, world: int) -> None:
    ranks = [EpochBatches(count, batch=batch, seed=0, epoch=0, rank=rank, world=world) for rank in range(world)]
    steps = batches_per_epoch(count, batch=batch, world=world)
    assert [len(rank) for rank in ranks] == [steps] * world
    together = [number for rank in ranks for number in numbers(rank)]
    assert len(set(together)) == len(together)
    if count >= world * batch:
        assert all(len(part) == batch for rank in ranks for part in rank)
        assert len(together) == steps * world * batch


def test_a_set_smaller_than_a_batch_is_one_smaller_step() -> None:
    (only,) = EpochBatches(3, batch=8, seed=0, epoch=0)
    assert len(only) == 3


def test_truth_is_padded_to_the_largest_box_count_with_class_minus_one(training: TrainingSet) -> None:
    still = TrainingSet(
        training.samples,
        Augmentation(size=(50, 70), flip=0, turn=0, crop=0, zoom_out=0, zoom_out_max=1, scale=(1.0, 1.0), colour=0),
        longest=140,
    )
    batch = collate([still[Key(number, 0)] for number in (0, 3, 1)])
    assert batch.images.shape == (3, 3, 50, 70)
    assert batch.truth.boxes.shape == (3, 3, 4)
    assert batch.truth.classes.tolist() == [[-1, -1, -1], [0, 1, 2], [0, -1, -1]]
    assert batch.truth.ignore.tolist() == [[False] * 3, [False, False, True], [True, False, False]]
    assert torch.equal(batch.truth.boxes[1], torch.from_numpy(training.samples[3].boxes))
    assert [Path(name).name for name in batch.names] == ["0.png", "3.png", "1.png"]


def test_a_batch_without_any_box_has_truth_of_width_zero(training: TrainingSet) -> None:
    batch = collate([training[Key(0, seed)] for seed in range(2)])
    assert batch.truth.boxes.shape == (2, 0, 4)
    assert batch.truth.classes.shape == batch.truth.ignore.shape == (2, 0)
    assert (batch.truth.classes.dtype, batch.truth.ignore.dtype) == (torch.int64, torch.bool)


def test_an_unreadable_image_is_skipped_and_reported(samples: list[Sample], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    gone = tmp_path / "gone.jpg"
    some = [samples[1], *(Sample(p, 9, 70, 50, *_no_boxes()) for p in (broken, gone)), samples[2]]
    training = TrainingSet(some, augmentation(), longest=128)
    assert isinstance(training[Key(1, 0)], Unreadable)
    batch = collate([training[Key(number, 0)] for number in range(4)])
    assert len(batch.images) == len(batch.truth.boxes) == 2
    assert [Path(name).name for name in batch.names] == ["1.png", "2.png"]
    assert [any(error.endswith(f": {path}") for error in batch.unreadable) for path in (broken, gone)] == [True, True]
    assert not any("\n" in error for error in batch.unreadable)


def test_a_mosaic_has_the_objects_of_four_images(samples: list[Sample]) -> None:
    whole = [replace(sample, boxes=np.tile(np.float32([[0, 0, 70, 50]]), (len(sample.boxes), 1))) for sample in samples]
    still = Augmentation(
        size=(64, 64), flip=0, turn=0, crop=0, zoom_out=0, zoom_out_max=1, scale=(0.5, 0.5), colour=0, mosaic=0.5
    )
    training = TrainingSet(whole, still, longest=128)
    examples = [training[Key(5, seed)] for seed in range(60)]
    assert all(isinstance(example, Example) and example.name.endswith("5.png") for example in examples)
    counts = [len(example.boxes) for example in examples if isinstance(example, Example)]
    assert 20 < sum(count == 5 for count in counts) < 40  # half of them are single images
    assert max(counts) > 10  # 5 of this one, and those of three others
    most = examples[int(np.argmax(counts))]
    assert isinstance(most, Example)
    assert collate([most]).names == [" + ".join((most.name, *most.others))]
    assert sum(len(whole[int(Path(name).stem)].boxes) for name in (most.name, *most.others)) == max(counts)
    again = training[Key(5, int(np.argmax(counts)))]
    assert all(torch.equal(a, b) for a, b in zip(examples[np.argmax(counts)][:4], again[:4], strict=True))


def test_a_mixed_image_has_the_objects_of_two(samples: list[Sample]) -> None:
    whole = [replace(sample, boxes=np.tile(np.float32([[0, 0, 70, 50]]), (len(sample.boxes), 1))) for sample in samples]
    still = Augmentation(
        size=(64, 64), flip=0, turn=0, crop=0, zoom_out=0, zoom_out_max=1, scale=(0.5, 0.5), colour=0, mixup=0.5
    )
    training = TrainingSet(whole, still, longest=128)
    examples = [training[Key(5, seed)] for seed in range(60)]
    assert all(isinstance(example, Example) and example.name.endswith("5.png") for example in examples)
    mixed = [example for example in examples if isinstance(example, Example) and example.others]
    assert 20 < len(mixed) < 40  # half of them
    for example in mixed:
        (other,) = example.others
        assert len(example.boxes) == 5 + len(whole[int(Path(other).stem)].boxes)
    still.mosaic = 1.0
    both = [training[Key(5, seed)] for seed in range(20)]
    assert {len(example.others) for example in both if isinstance(example, Example)} == {3, 7}


def test_an_image_stays_alone_if_its_key_says_so(samples: list[Sample]) -> None:
    changes = augmentation()
    changes.mosaic, changes.mixup = 1.0, 1.0
    training = TrainingSet(samples, changes, longest=128)
    mixed = [training[Key(5, seed)] for seed in range(5)]
    assert all(isinstance(example, Example) and len(example.others) == 7 for example in mixed)
    alone = [training[Key(5, seed, alone=True)] for seed in range(5)]
    assert all(isinstance(example, Example) and example.others == () for example in alone)


def test_an_image_stays_alone_if_the_one_that_would_be_laid_over_it_cannot_be_read(
    samples: list[Sample], tmp_path: Path
) -> None:
    some = [samples[1], Sample(tmp_path / "gone.jpg", 9, 70, 50, *_no_boxes())]
    mixed = augmentation()
    mixed.mixup = 1.0
    training = TrainingSet(some, mixed, longest=128)
    found = [training[Key(0, seed)] for seed in range(40)]
    counts = [len(example.others) for example in found if isinstance(example, Example)]
    assert len(counts) == 40
    assert set(counts) == {0, 1}
    assert isinstance(training[Key(1, 0)], Unreadable)


def test_an_image_stays_alone_if_another_one_of_its_mosaic_cannot_be_read(
    samples: list[Sample], tmp_path: Path
) -> None:
    some = [samples[1], Sample(tmp_path / "gone.jpg", 9, 70, 50, *_no_boxes())]
    mosaic = augmentation()
    mosaic.mosaic = 1.0
    training = TrainingSet(some, mosaic, longest=128)
    found = [training[Key(0, seed)] for seed in range(40)]
    assert all(isinstance(example, Example) and example.image.shape == (3, 64, 64) for example in found)
    assert isinstance(training[Key(1, 0)], Unreadable)


def test_a_part_of_an_image_is_an_example_of_its_own(samples: list[Sample]) -> None:
    still = Augmentation(size=(20, 30), flip=0, turn=0, crop=0, zoom_out=0, zoom_out_max=1, scale=(1.0, 1.0), colour=0)
    part: dict[str, Any] = {"part": (40, 25, 70, 45), "full_size": (70, 50)}
    tile = replace(samples[2], width=30, height=20, boxes=samples[2].boxes / 4, **part)
    example = TrainingSet([tile], still, longest=60)[Key(0, 0)]
    assert isinstance(example, Example)
    assert np.array_equal(example.image.permute(1, 2, 0), open_image(tile.image)[25:45, 40:70])
    assert torch.equal(example.boxes, torch.from_numpy(tile.boxes))


def test_a_part_of_an_image_of_another_size_than_annotated_shows_the_same(samples: list[Sample]) -> None:
    still = Augmentation(size=(20, 30), flip=0, turn=0, crop=0, zoom_out=0, zoom_out_max=1, scale=(1.0, 1.0), colour=0)
    box = np.array([[2, 4, 12, 8]], np.float32)  # in a tile of 60 × 40 px of an image of 140 × 100 px: 70 × 50 in truth
    part: dict[str, Any] = {"part": (80, 50, 140, 90), "full_size": (140, 100)}
    tile = replace(
        samples[2], width=60, height=40, **part, boxes=box, classes=np.zeros(1, np.int64), ignore=np.zeros(1, np.bool_)
    )
    example = TrainingSet([tile], still, longest=60)[Key(0, 0)]
    assert isinstance(example, Example)
    assert np.array_equal(example.image.permute(1, 2, 0), open_image(tile.image)[25:45, 40:70])
    assert example.boxes.tolist() == [[1, 2, 6, 4]]


def test_a_batch_of_only_unreadable_images_is_empty() -> None:
    batch = collate([Unreadable("a"), Unreadable("b")])
    assert (len(batch.images), len(batch.truth.boxes), batch.names) == (0, 0, [])
    assert batch.unreadable == ["a", "b"]


def _no_boxes() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_), np.zeros(0)
