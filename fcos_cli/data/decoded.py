"""What `fcos doctor` finds by decoding every image: damaged files, wrong sizes, and scenes that are in both splits.

Two images look alike if at most 12 of the 128 bits of their difference hashes differ, and their thumbnails correlate,
in brightness and in colour (in brightness alone if one of the two is gray). Measured on photos of blood cells, cards
and animals: copies that were compressed again, reduced to half, or changed by a quarter in brightness differ in up to 7
bits, images cropped by 2 % in about 9, and the most similar unrelated ones in 20 or more. Thumbnails correlate by more
than 0.92 for all of these. They tell apart images of plain background, whose hashes say little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcos_cli.data.doctor import same_content, some
from fcos_cli.data.images import image_size, open_image
from fcos_cli.data.samples import Dataset, Finding
from fcos_cli.errors import DataError
from fcos_cli.hardware import allowed_cores
from fcos_cli.threads import thread_pool

SIDE = 8
ALIKE = 12  # bits that may differ
THUMBNAIL = 16  # pixels per side
CORRELATION = 0.9
LUMA = (0.299, 0.587, 0.114)  # as in Pillow's mode L
GRAY = 8  # levels by which the channels of a gray thumbnail may differ, after JPEG
BLOCK = 64  # images that are decoded between two reports of progress, or before Ctrl-C is obeyed
ROWS = 1024  # of the table of distances, computed at a time
THREADS = 4
LARGE = 12_000_000  # pixels; larger images are decoded one at a time, to need less memory
NARROW = 32  # of 256 levels

Bits = npt.NDArray[np.bool_]


class Decoded(NamedTuple):
    """One image file: (width, height) as displayed, its hash [128] and thumbnail [16, 16, 3], or what is wrong.

    span: between its darkest and its brightest value, 0…255.
    """

    size: tuple[int, int] = (0, 0)
    span: int = 255
    bits: Bits | None = None
    thumbnail: npt.NDArray[np.uint8] | None = None
    problem: str = ""


def decode_all(files: Sequence[Path], *, on_progress: Callable[[int, int], None] | None = None) -> dict[Path, Decoded]:
    """Decode each file once, in a few threads. on_progress: called with (files done, total)."""
    decoded: dict[Path, Decoded] = {}
    unique = list(dict.fromkeys(files))
    decode = partial(_decode, alone=Lock())
    with thread_pool(min(THREADS, allowed_cores()), name="fcos-doctor") as pool:
        for start in range(0, len(unique), BLOCK):
            block = unique[start : start + BLOCK]
            decoded.update(zip(block, pool.map(decode, block), strict=True))
            if on_progress is not None:
                on_progress(len(decoded), len(unique))
    return decoded


def _decode(file: Path, *, alone: Lock) -> Decoded:
    """alone: held while a large image is in memory."""
    try:
        with alone if math.prod(image_size(file)) > LARGE else nullcontext():
            return _described(open_image(file))
    except DataError as error:
        return Decoded(problem=error.what)


def _described(pixels: npt.NDArray[np.uint8]) -> Decoded:
    small = Image.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    span = int(pixels.max()) - int(pixels.min())
    return Decoded((pixels.shape[1], pixels.shape[0]), span, difference_hash(pixels), np.asarray(small))


def difference_hash(pixels: npt.NDArray[np.uint8]) -> Bits:
    """Whether each cell of a coarse gray image is brighter than its left, and than its upper neighbour: bool [128].

    pixels: uint8 [H, W, 3]. Source: N. Krawetz, Kind of Like That (2013), here in both directions.
    """
    gray = Image.fromarray(pixels).convert("L")
    shrink = partial(gray.resize, resample=Image.Resampling.BOX)
    across = np.asarray(shrink((SIDE + 1, SIDE))).astype(np.int16)
    down = np.asarray(shrink((SIDE, SIDE + 1))).astype(np.int16)
    return np.concatenate([(np.diff(across, axis=1) > 0).ravel(), (np.diff(down, axis=0) > 0).ravel()])


def examine_decoded(train: Dataset, val: Dataset, decoded: dict[Path, Decoded]) -> list[tuple[str, Finding]]:
    """Return (split, finding) of all problems that decoding shows. decoded: every image of both splits."""
    findings = [("train", finding) for finding in _of_split(train, decoded)]
    findings += [("val", finding) for finding in _of_split(val, decoded)]
    return findings + [("train", finding) for finding in _look_alike(train, val, decoded)]


def _of_split(dataset: Dataset, decoded: dict[Path, Decoded]) -> Iterator[Finding]:
    damaged, mismatched, narrow = [], [], []
    for sample in dataset.samples:
        image = decoded[sample.image]
        if image.problem:
            damaged.append(f"{sample.image.name} ({image.problem})")
        elif image.size != (sample.width, sample.height):
            width, height = image.size
            mismatched.append(
                f"{sample.image.name} (file {width}x{height}, annotations {sample.width}x{sample.height})"
            )
        if image.span < NARROW:
            narrow.append(f"{sample.image.name} ({image.span + 1})")
    if damaged:
        message = f"images that cannot be decoded: {len(damaged)} of {len(dataset)}"
        remedy = "copy these files again, or remove them from the data set; training skips them"
        yield Finding("damaged-image", "error", some(damaged), message, remedy)
    if mismatched:
        message = f"images whose size (after EXIF orientation) differs from the annotations: {len(mismatched)}"
        remedy = (
            "if width and height are swapped, the boxes were drawn before EXIF rotation: rotate files or boxes; "
            "otherwise restore the original images"
        )
        yield Finding("size-mismatch", "warning", some(mismatched), message, remedy)
    if 2 * len(narrow) > len(dataset):
        message = f"images that use fewer than {NARROW} of 256 levels, so little can be seen: {len(narrow)}"
        remedy = "16-bit images are read with 65535 as white: if yours use fewer bits, scale them to 8 or the full 16"
        yield Finding("narrow-range", "warning", some(narrow), message, remedy)


def _look_alike(train: Dataset, val: Dataset, decoded: dict[Path, Decoded]) -> Iterator[Finding]:
    """Find images of val that look like one of train without being the same file."""
    ours, theirs = (
        [file for file in dict.fromkeys(s.image for s in dataset.samples) if decoded[file].bits is not None]
        for dataset in (train, val)
    )
    pairs = []
    for i, j in nearest(_stack(theirs, decoded), _stack(ours, decoded)):
        if not correlated(decoded[theirs[i]], decoded[ours[j]]):
            continue
        if theirs[i] != ours[j] and not same_content(theirs[i], ours[j]):
            pairs.append(f"{ours[j].name} ≈ {theirs[i].name}")
    if pairs:
        message = f"images of val that look like one of train, which makes val metrics too high: {len(pairs)}"
        remedy = "look at these pairs; put all images of a scene, a video or a burst into the same split"
        yield Finding("near-duplicates", "warning", some(pairs), message, remedy)


def correlated(one: Decoded, other: Decoded) -> bool:
    """Whether two thumbnails show the same light and dark places, and the same colours. Plain ones show nothing.

    Colours are not compared if one of the two, and not the other, is gray.
    """
    a, b = (np.asarray(image.thumbnail, np.float64) for image in (one, other))
    grays = [bool(np.ptp(pixels, axis=2).max() <= GRAY) for pixels in (a, b)]
    pairs = [(a @ LUMA, b @ LUMA)] if grays[0] != grays[1] else [(a.mean(axis=2), b.mean(axis=2)), (a, b)]
    for x, y in pairs:
        x, y = x - x.mean(), y - y.mean()
        if np.sum(x * y) < CORRELATION * np.sqrt(np.sum(x**2) * np.sum(y**2)) or not x.any():
            return False
    return True


def _stack(files: Sequence[Path], decoded: dict[Path, Decoded]) -> Bits:
    return np.array([decoded[file].bits for file in files], np.bool_).reshape(-1, 2 * SIDE**2)


def nearest(hashes: Bits, others: Bits) -> list[tuple[int, int]]:
    """Return (row, row of the most similar other) of all hashes [N, 128] that look like one of the others [M, 128]."""
    if not len(others):
        return []
    signs, pairs = np.where(others, 1, -1).astype(np.float32), []
    for start in range(0, len(hashes), ROWS):
        block = np.where(hashes[start : start + ROWS], 1, -1).astype(np.float32)
        distances = (signs.shape[1] - block @ signs.T) / 2  # product of signs: equal bits minus different ones
        best = distances.argmin(axis=1)
        found = np.flatnonzero(distances[np.arange(len(block)), best] <= ALIKE)
        pairs += [(start + int(row), int(best[row])) for row in found]
    return pairs
