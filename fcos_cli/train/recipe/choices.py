"""The automatic settings: each is chosen from the data and the length of the run, and says why.

examples/recipes/README.md has the experiments behind the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fcos_cli.data.doctor import MIRRORS
from fcos_cli.model.config import FINE_STRIDES, STRIDES
from fcos_cli.train.recipe.facts import DataFacts

STEP = 32
"""Sides of the network input are multiples of this."""

SMALLEST, LARGEST = 320, 640
"""Longer side of the network input, unless the images are smaller."""

LONG = 2.0
"""Images whose longer side is more than this many times the shorter one get as many pixels as those of this shape."""

CLEAR = 24.0
"""Pixels of network input that the sides of all but the smallest tenth of the boxes should have."""

PASSES = 40
"""A run with a time limit should see each image this often, or else MIN_IMAGES in all, before its input is enlarged."""

MIN_IMAGES = 12_000

EASY = 60.0
"""Where the sides of all but the smallest tenth of the boxes have this many pixels, seeing twice the images comes
first: longer training gains more than a larger input.
"""

MIN_STEPS, MIN_EPOCHS = 1500, 12
"""Length of a run without a time limit: whichever is longer."""

VALIDATIONS = 50
"""Number of validations of a run without a time limit, unless it has fewer epochs: with few images there are hundreds,
each shorter than a validation.
"""

MIN_BATCH = 4
"""Images at a time that BatchNorm needs for its statistics."""

MANY_TINY = 0.25
"""The finest level gets a point every 4 pixels if more than this share of the boxes is smaller than 8 pixels.
Reasoned, not measured: such boxes mostly have no point."""

RATES = {"adamw": 2e-3, "sgd": 1e-2}
"""Learning rate for 16 images per step. That of SGD is the paper's (§4)."""

DECAYS = {"adamw": 0.02, "sgd": 1e-4}
"""Weight decay. That of SGD is the paper's."""

GENTLE, GENTLE_BACKBONE = 1e-3, 0.5
"""Learning rate of AdamW, and the backbone's factor, if the backbone knows such objects."""

KNOWN_STAGES = 3
"""Stages of such a backbone that are not trained, up to the map of stride 8: as good in as many steps, and faster."""

RARE = 0.1
"""Classes in a smaller share of the images than this are repeated, if the most common one is IMBALANCE times as common
as the rarest; where most classes are that rare, only those below the median are.
"""

IMBALANCE = 5.0

CROWDED = 5.0
"""Images with more boxes than this, on average, come one at a time."""

AS_WIDE_AS_TALL = 1.15
"""Boxes of objects without an upright orientation are as often wide as tall: within this factor, in every class."""

TOLD_APART = 0.75
"""Objects have an upright orientation, and the backbone knows such objects, if it tells more than this share of them
from the same upside down.
"""

Share = Callable[[], float | None]
"""`orientation.upright_share`. It takes seconds, so it is only asked where nothing else decides."""


class Choice(NamedTuple):
    """The value of a setting, and the reason for it in a few words."""

    value: Any
    reason: str


def choose_size(facts: DataFacts, *, pixels: float | None, finer: float = 1.0) -> Choice:
    """Height and width of the network input.

    pixels: number of input pixels that the run can afford in all, or None if its length is free. finer: cost of a pixel
    where `choose_strides` would add a finer level, relative to the usual levels. The shape is that of most images, or
    else a square. The longer side is large enough that small boxes stay clear, or as large as a run with a time limit
    can afford; never larger than the images.
    """
    source = math.ceil(max(facts.width, facts.height) / STEP) * STEP
    smallest, largest = (min(round(side * _stretch(facts) / STEP) * STEP, source) for side in (SMALLEST, LARGEST))
    wanted = math.ceil(CLEAR / facts.box_side(0.1) / STEP) * STEP
    side, why = min(max(wanted, smallest), largest), f"so that 90 % of the boxes are {CLEAR:g} px or larger"
    if wanted <= smallest:
        why = "which is enough for these boxes"
    elif wanted > largest:
        why = "as large as the images" if largest == source else "the largest that is chosen automatically"
    if pixels is not None:
        images = max(MIN_IMAGES, PASSES * facts.images)
        easy = math.ceil(EASY / facts.box_side(0.1) / STEP) * STEP
        needed = {longer: images if longer <= easy else 2 * images for longer in range(smallest, largest + 1, STEP)}
        affordable = [x for x, count in needed.items() if _cost(facts, x, finer=finer) * count <= pixels]
        limit = max(affordable, default=smallest)
        if not affordable:
            side, why = smallest, f"the smallest: there is no time for {needed[smallest]:,} images"
        elif limit != side:
            side, why = limit, f"the largest that leaves time for {needed[limit]:,} images"
        if affordable and limit == easy < largest:
            why = f"90 % of the boxes are {EASY:g} px or larger, and more images help more than larger ones"
    shape = "the shape of most images" if facts.one_shape else "images of various shapes"
    return Choice(input_shape(facts, side), f"{shape}; {why}")


def _stretch(facts: DataFacts) -> float:
    """Factor of the longer side of the input, so that long images get no fewer pixels than those of shape LONG."""
    return math.sqrt(max(1.0, facts.aspect / LONG)) if facts.one_shape else 1.0


def _cost(facts: DataFacts, longer: int, *, finer: float) -> float:
    """Pixels of an input with this longer side, with their factor `finer` where it applies."""
    size = input_shape(facts, longer)
    return math.prod(size) * (finer if choose_strides(facts, size=size).value == FINE_STRIDES else 1.0)


def choose_shape(facts: DataFacts, *, longer: int) -> Choice:
    """Height and width of the network input of a network that is made for inputs of `longer` pixels."""
    shape = "the shape of most images" if facts.one_shape else "images of various shapes"
    return Choice(input_shape(facts, longer), f"{shape}; the network is made for {longer} px")


def input_shape(facts: DataFacts, longer: int) -> tuple[int, int]:
    """(height, width) with this longer side, multiples of STEP."""
    if not facts.one_shape:
        return longer, longer
    steps = longer / facts.aspect / STEP
    # for long images, a step less would leave a good part of the input's width empty
    shorter = max(STEP, (math.ceil(steps) if facts.aspect > LONG else round(steps)) * STEP)
    return (longer, shorter) if facts.height > facts.width else (shorter, longer)


def choose_strides(facts: DataFacts, *, size: tuple[int, int]) -> Choice:
    """Strides of the levels. size: of the network input, which is chosen before; larger inputs are preferred."""
    tiny = float((facts.box_sides * max(size) < STRIDES[0]).mean()) if facts.boxes else 0.0
    strides = FINE_STRIDES if tiny > MANY_TINY else STRIDES
    return Choice(strides, f"{tiny:.0%} of the boxes are smaller than {STRIDES[0]} px")


def choose_lr(optimizer: str, *, told_apart: Share) -> Choice:
    """Learning rate for 16 images per step. A lower one keeps what the backbone knows about the objects."""
    if optimizer == "adamw" and (known := _known(told_apart())):
        return Choice(GENTLE, known)
    return Choice(RATES[optimizer], f"for {optimizer}")


def choose_weight_decay(optimizer: str) -> Choice:
    """Weight decay of everything but norms, biases and scales."""
    return Choice(DECAYS[optimizer], f"for {optimizer}")


def choose_backbone_lr(*, told_apart: Share) -> Choice:
    """Factor of the backbone's learning rate."""
    if known := _known(told_apart()):
        return Choice(GENTLE_BACKBONE, known)
    return Choice(1.0, "the backbone has to learn as much as the rest")


def choose_freeze(*, told_apart: Share) -> Choice:
    """Stages of the backbone that are not trained."""
    if known := _known(told_apart()):
        return Choice(KNOWN_STAGES, known)
    return Choice(0, "the backbone has to learn as much as the rest")


def choose_ranges(strides: tuple[int, ...], *, size: tuple[int, int]) -> Choice:
    """Limits of the levels' distances: a multiple of their strides that grows with the input, as in the papers, where
    8 strides went with 800 px.
    """
    factor = 4 if min(max(size), LONG * min(size)) < 600 else 8
    reason = f"{factor} strides, for an input of {size[0]} × {size[1]} px"
    return Choice(tuple(float(factor * stride) for stride in strides[:-1]), reason)


def choose_norm(*, batch: int, told_apart: Share) -> Choice:
    """Whether the BatchNorm of the backbone is trained. batch: images that are normalized together."""
    if batch < MIN_BATCH:
        return Choice("frozen", f"{batch} images at a time are too few for statistics")
    if known := _known(told_apart()):
        return Choice("frozen", known)
    return Choice("trained", "the backbone learns faster")


def _known(share: float | None) -> str:
    """Why the backbone is believed to know the objects; empty if it is not."""
    if share is None or share <= TOLD_APART:
        return ""
    return f"the backbone knows such objects: {share:.0%} are told apart from their upside-down copies"


def choose_epochs(*, images: int, batch: int) -> Choice:
    """Number of epochs of a run without a time limit. images: of an epoch; batch: of a step, in all processes."""
    steps = max(1, images // batch)
    epochs = max(MIN_EPOCHS, math.ceil(MIN_STEPS / steps))
    return Choice(epochs, f"{epochs * steps:,} steps of {batch} images")


def choose_val_every(*, epochs: int) -> Choice:
    """Epochs between two validations in a run without a time limit."""
    every = max(1, epochs // VALIDATIONS)
    return Choice(every, f"{math.ceil(epochs / every)} validations in {epochs} epochs")


def choose_turn(facts: DataFacts, *, names: Sequence[str], told_apart: Share) -> Choice:
    """Probability of `augment.turn`. names: of the classes."""
    if not facts.boxes:
        return Choice(0.0, "there are no boxes")
    if len(names) > 1 and (directed := [name for name in names if MIRRORS.search(name)]):
        return Choice(0.0, f"turned, a {directed[0]!r} may look like another class")
    stretch = np.abs(np.log(facts.class_shapes))
    index = int(np.nanargmax(stretch))
    if stretch[index] > math.log(AS_WIDE_AS_TALL):
        wide = facts.class_shapes[index] > 1
        factor = math.exp(stretch[index])
        return Choice(0.0, f"{names[index]} boxes are {factor:.1f} times as {'wide' if wide else 'tall'}")
    share = told_apart()
    if share is None:
        return Choice(0.0, "not known whether the objects have an upright orientation")
    told = f"{share:.0%} are told apart from their upside-down copies"
    if share > TOLD_APART:
        return Choice(0.0, f"the objects have an upright orientation: {told}")
    return Choice(0.75, f"the objects have no upright orientation: {told}")


def choose_mosaic(facts: DataFacts, *, size: tuple[int, int]) -> Choice:
    """Probability of `augment.mosaic`. size: of the network input."""
    crowd = facts.boxes / max(1, facts.images)
    if crowd > CROWDED:
        return Choice(0.0, f"{crowd:.1f} boxes per image are already many")
    halved = facts.box_sides * max(size) / 2
    if facts.boxes and (tiny := float((halved < STRIDES[0]).mean())) > MANY_TINY:
        return Choice(0.0, f"{tiny:.0%} of the boxes would become smaller than {STRIDES[0]} px")
    return Choice(0.5, f"{crowd:.1f} boxes per image are few; half of the inputs are mosaics of four images")


def choose_repeat(facts: DataFacts) -> Choice:
    """Threshold of `train.repeat`."""
    present = facts.class_shares[facts.class_shares > 0]
    threshold = min(RARE, float(np.median(present))) if len(present) else 0.0
    if len(present) < 2 or present.max() < IMBALANCE * present.min() or present.min() >= threshold:
        return Choice(0.0, "no class is rare")
    return Choice(
        threshold, f"the rarest class is in {present.min():.1%} of the images, the most common in {present.max():.0%}"
    )
