"""Dataset, sampler and collate function: Samples on disk → training batches, ordered by seed and epoch only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import v2

from fcos_cli.data.augment.mixup import mix
from fcos_cli.data.augment.mosaic import join, quarters
from fcos_cli.data.augment.transforms import Augmentation, Drawn
from fcos_cli.data.cache import ImageCache, reduced_size
from fcos_cli.data.repeat import draw_epoch
from fcos_cli.data.samples import Sample
from fcos_cli.data.tiling import open_sample
from fcos_cli.errors import DataError
from fcos_cli.model.targets import Truth


class Example(NamedTuple):
    """One training image: image uint8 [3, H, W]; boxes float32 [N, 4] xyxy in pixels; classes [N]; ignore [N].

    name: of its file. others: of the files of the other images in it, if it is a mosaic or mixed.
    """

    image: Tensor
    boxes: Tensor
    classes: Tensor
    ignore: Tensor
    name: str
    others: tuple[str, ...] = ()


class Unreadable(NamedTuple):
    """An image that could not be opened, and why."""

    error: str


class Batch(NamedTuple):
    """images uint8 [B, 3, H, W]; truth padded to the largest number of boxes; errors of skipped images.

    names: of the file of each image; of several images in one (mosaic, mixup) all, with + between them.
    """

    images: Tensor
    truth: Truth
    names: list[str]
    unreadable: list[str]


class Key(NamedTuple):
    """What the sampler yields: the index of a sample, the seed of its augmentation, and whether the image stays alone,
    without mosaic and mixup.
    """

    number: int
    seed: int
    alone: bool = False


class TrainingSet(Dataset[Example | Unreadable]):
    """Samples with augmentation. The same key gives the same example in any process, with or without a cache.

    longest: larger images are first reduced to this many pixels on their longer side.
    """

    def __init__(
        self, samples: Sequence[Sample], augmentation: Augmentation, *, longest: int, cache: ImageCache | None = None
    ) -> None:
        self.samples = samples
        self.augmentation = augmentation
        self.longest = longest
        self.cache = cache

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Example | Unreadable:
        random = np.random.default_rng(key.seed)
        mosaic, mixup = (0.0, 0.0) if key.alone else (self.augmentation.mosaic, self.augmentation.mixup)
        try:
            example, numbers = self._drawn(key.number, mosaic, random)
        except DataError as error:
            return Unreadable(error.brief)  # one bad file must not stop the run; it is reported
        if mixup and random.random() < mixup:
            with suppress(DataError):  # an unreadable other image is reported in its own turn
                other, more = self._drawn(int(random.integers(len(self.samples))), mosaic, random)
                example, numbers = mix(example, other), numbers + more
        name, *others = [str(self.samples[number].image) for number in numbers]
        return Example(*example, name=name, others=tuple(others))

    def _drawn(self, number: int, mosaic: float, random: np.random.Generator) -> tuple[Drawn, list[int]]:
        """The image alone or, with this probability, in a mosaic, and the numbers of all samples in it."""
        if mosaic and random.random() < mosaic:
            return self._mosaic(number, random)
        return self._single(number, self.augmentation, random), [number]

    def _single(self, number: int, augmentation: Augmentation, random: np.random.Generator) -> Drawn:
        sample = self.samples[number]
        image, boxes = self._load(number)
        return augmentation(
            image, boxes, torch.from_numpy(sample.classes), torch.from_numpy(sample.ignore), random=random
        )

    def _mosaic(self, number: int, random: np.random.Generator) -> tuple[Drawn, list[int]]:
        """The image and three others, which are drawn at random; or the image alone, if they cannot all be read. And
        the numbers of their samples.
        """
        corners = quarters(self.augmentation.size, random=random)
        numbers = [number, *random.integers(len(self.samples), size=3).tolist()]
        try:
            parts = [
                self._single(index, self.augmentation.quarter((y2 - y1, x2 - x1)), random)
                for index, (x1, y1, x2, y2) in zip(numbers, corners, strict=True)
            ]
        except DataError:  # an unreadable other image is reported in its own turn
            return self._single(number, self.augmentation, random), [number]
        return join(parts, corners), numbers

    def _load(self, number: int) -> tuple[Tensor, Tensor]:
        """Image uint8 [3, h, w], in channels last, and its boxes."""
        sample = self.samples[number]

        def load() -> npt.NDArray[np.uint8]:
            image = torch.from_numpy(np.ascontiguousarray(open_sample(sample))).permute(2, 0, 1)
            size = reduced_size(*image.shape[1:], longest=self.longest)
            image = image if size == tuple(image.shape[1:]) else v2.functional.resize(image, list(size))
            return image.permute(1, 2, 0).numpy()

        pixels = load() if self.cache is None else self.cache.get(number, load)
        scale = torch.tensor([pixels.shape[1] / sample.width, pixels.shape[0] / sample.height]).repeat(2)
        return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(sample.boxes) * scale


class EpochBatches(Sampler[list[Key]]):
    """Batches of one epoch: a permutation that depends on (seed, epoch), split across `world` processes.

    An incomplete last batch is dropped (unless it is the only one), so that the shape and the learning rate of a step
    stay constant. repeats: how often each image comes on average (see `data.repeat`); default: once.
    """

    def __init__(
        self,
        count: int,
        *,
        batch: int,
        seed: int,
        epoch: int,
        rank: int = 0,
        world: int = 1,
        repeats: npt.NDArray[np.float64] | None = None,
    ) -> None:
        generator = np.random.default_rng((seed, epoch))
        order = generator.permutation(count) if repeats is None else draw_epoch(repeats, random=generator)
        count = len(order)
        seeds = generator.integers(0, 2**63 - 1, size=count)
        keys = [Key(int(index), int(s)) for index, s in zip(order, seeds, strict=True)][rank::world]
        full = batches_per_epoch(count, batch=batch, world=world)
        self.batches = [keys[i * batch : (i + 1) * batch] for i in range(full)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)


def batches_per_epoch(count: int, *, batch: int, world: int = 1) -> int:
    """Number of steps per epoch over `count` images, the same in every process; at least 1."""
    return max(1, count // world // batch)


def collate(examples: list[Example | Unreadable]) -> Batch:
    """Combine examples of equal image size into a Batch. Truth is padded with class -1."""
    good = [example for example in examples if isinstance(example, Example)]
    bad = [example.error for example in examples if isinstance(example, Unreadable)]
    if not good:
        return Batch(torch.empty(0, 3, 1, 1, dtype=torch.uint8), _truth([]), [], bad)
    names = [" + ".join((example.name, *example.others)) for example in good]
    return Batch(torch.stack([example.image for example in good]), _truth(good), names, bad)


def _truth(examples: list[Example]) -> Truth:
    if not examples:
        return Truth(torch.zeros(0, 0, 4), torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.bool))
    return Truth(
        boxes=pad_sequence([e.boxes for e in examples], batch_first=True),
        classes=pad_sequence([e.classes for e in examples], batch_first=True, padding_value=-1),
        ignore=pad_sequence([e.ignore for e in examples], batch_first=True),
    )
