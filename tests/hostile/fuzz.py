"""Seeded fuzzing: valid files are damaged at random, and reading them must keep the contract.

    python -m tests.hostile.fuzz --count 20000 --seed 0

Each case takes a seed file of one kind, damages it with one to three mutations, and reads it. A case fails if anything
but an FcosError is raised, if it takes too long, or if memory grows too much. Failing files are kept, and named.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import shutil
import struct
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from tests.hostile.contract import TooSlow, bounded

SECONDS, MEGABYTES = 10.0, 500
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
WORDS = (
    b"nan",
    b"-inf",
    b"1e999",
    b"-1",
    b"9" * 400,
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"\xff",
    b"\0",
    b"&e;",
    b"*a",
    b"../",
)


class Kind(NamedTuple):
    """seeds: valid contents. name: of the file, in a folder with a picture. read: the function to fuzz, called with its
    path. wrap: makes the file from what was damaged."""

    seeds: list[bytes]
    name: str
    read: Callable[[Path], Any]
    wrap: Callable[[bytes], bytes] = bytes


class Failed(NamedTuple):
    kind: str
    number: int
    reason: str
    content: bytes


# --- mutations -------------------------------------------------------------------------------------------------------


def flip(data: bytearray, other: bytes, rng: random.Random) -> bytearray:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def truncate(data: bytearray, other: bytes, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def splice(data: bytearray, other: bytes, rng: random.Random) -> bytearray:
    """The beginning of one file, the end of another."""
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def duplicate(data: bytearray, other: bytes, rng: random.Random) -> bytearray:
    start, at = rng.randrange(len(data)), rng.randrange(len(data))
    piece = data[start : start + rng.randint(1, 200)] * rng.choice((1, 1, 2, 50))
    return data[:at] + piece + data[at:]


def remove(data: bytearray, other: bytes, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 100) :]


def integer(data: bytearray, other: bytes, rng: random.Random) -> bytearray:
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice(INTERESTING) % 256**width
    at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 64))
    data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
    return data


def word(data: bytearray, other: bytes, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    data[at : at + rng.randint(0, 6)] = rng.choice(WORDS)
    return data


def value(data: bytearray, other: bytes, rng: random.Random) -> bytearray:
    """Replace a word or number with another, which leaves the syntax of a text as it is."""
    token = rng.choice((rb"[\w.+-]+", rb"(?<!\w)[\d.]+(?!\w)"))
    found = list(re.finditer(token, bytes(data[:20_000])))
    if not found:
        return word(data, other, rng)
    start, end = rng.choice(found).span()
    from_file = bytes(data[slice(*rng.choice(found).span())])
    data[start:end] = rng.choice((*WORDS, from_file, b"%d" % rng.choice(INTERESTING)))
    return data


MUTATIONS = {flip: 3, value: 8, word: 1, integer: 3, duplicate: 1, remove: 1, splice: 1, truncate: 1}
"""Each with its relative frequency. Most cases should get past the syntax of their format."""


def mutate(seeds: list[bytes], rng: random.Random) -> bytes:
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if data:
            (mutation,) = rng.choices(list(MUTATIONS), list(MUTATIONS.values()))
            data = mutation(data, rng.choice(seeds), rng)
    return bytes(data)


# --- what is fuzzed --------------------------------------------------------------------------------------------------


def kinds(folder: Path) -> dict[str, Kind]:
    """Every kind of file with its seeds, which are made in `folder`."""
    from fcos_cli.convert.read import read_checkpoint
    from fcos_cli.data.formats.read import read_dataset
    from fcos_cli.data.images import open_image
    from fcos_cli.model.artifact import load
    from fcos_cli.runtime.headers import read_header
    from tests.runtime.onnx_files import write_onnx

    small = pictures()
    weights = artifact(folder)
    facts = write_onnx(folder / "x.onnx").read_bytes()

    (size,) = struct.unpack("<Q", weights[:8])

    def with_weights(header: bytes) -> bytes:
        return struct.pack("<Q", len(header)) + header + weights[8 + size :]

    def whole(path: Path) -> Any:
        return read_dataset(path, split="all")

    def built(path: Path) -> Any:
        read_header(path)
        return load(path).build()

    return {
        "pictures": Kind(small, "x.png", open_image),
        "coco": Kind(coco_seeds(), "train.json", whole),
        "yolo labels": Kind([b"0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.1 0.1\n", b"0 1 2 3 4 5 6\r\n"], "labels/a.txt", above),
        "data.yaml": Kind(yaml_seeds(), "data.yaml", whole),
        "voc": Kind(voc_seeds(), "Annotations/a.xml", above),
        "labelme": Kind(labelme_seeds(), "Annotations/a.json", beside),
        "safetensors": Kind([weights], "x.safetensors", built),
        "safetensors headers": Kind([weights[8 : 8 + size]], "x.safetensors", built, with_weights),
        "onnx metadata": Kind([facts], "x.onnx", read_header),
        "checkpoints": Kind(checkpoints(), "x.pth", read_checkpoint),
    }


def above(file: Path) -> Any:
    """Read the data set that a label file belongs to."""
    from fcos_cli.data.formats.read import read_dataset

    return read_dataset(file.parent.parent, split="all")


def beside(file: Path) -> Any:
    """Read the data set of the folder that a label file lies in."""
    from fcos_cli.data.formats.read import read_dataset

    return read_dataset(file.parent, split="all")


def pictures() -> list[bytes]:
    from tests.hostile.image_cases import encode, noise

    image = noise(24, 16)
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000")
    seeds = [encode(image, kind) for kind in kinds]
    seeds += [encode(image.convert(mode), "PNG") for mode in ("LA", "P", "RGBA", "1", "I;16")]
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds += [encode(image, "JPEG", exif=exif, progressive=True), encode(image.convert("CMYK"), "TIFF")]
    return [*seeds, encode(image, "TIFF", compression="tiff_lzw"), encode(image, "WEBP", lossless=True)]


def coco_seeds() -> list[bytes]:
    from tests.hostile import coco_cases as coco

    plain = coco.text(annotations=[coco.box(), coco.box(iscrowd=1, area=3.5)], info={"year": 2026})
    return [plain.encode(), coco.text(categories=[coco.category(), coco.category(id=7, name="dog")]).encode()]


def yaml_seeds() -> list[bytes]:
    return [
        b"path: .\nnames: [cat, dog]\nnc: 2\ntrain: images\nval: images\n",
        b"names:\n  0: cat\n  1: dog\ntrain: [images]\n",
    ]


def labelme_seeds() -> list[bytes]:
    from tests.hostile.labelme_cases import document, shape

    place = "../images/a.png"
    kinds = [shape(label="cat"), shape(shape_type="circle"), shape(shape_type="line")]
    return [document(imagePath=place).encode(), document(*kinds, imagePath=place).encode()]


def voc_seeds() -> list[bytes]:
    from tests.hostile.voc_cases import annotation, thing

    return [annotation(thing() + thing(more="<difficult>1</difficult>", name="cat")).encode(), annotation().encode()]


def artifact(folder: Path) -> bytes:
    from fcos_cli.model.artifact import save
    from tests.tiny import tiny_artifact

    save(folder / "x.safetensors", tiny_artifact())
    return (folder / "x.safetensors").read_bytes()


def checkpoints() -> list[bytes]:
    import torch

    def saved(content: Any, **options: Any) -> bytes:
        stream = io.BytesIO()
        torch.save(content, stream, **options)
        return stream.getvalue()

    content = {"model": {"a": torch.zeros(2, 3), "b": torch.ones(4)}, "epoch": 3, "meta": {"classes": ["x"]}}
    return [saved(content), saved(content, _use_new_zipfile_serialization=False), saved(content["model"])]


def prepare(folder: Path, name: str) -> Path:
    """The surroundings of a file: a picture, and what the format needs beside it."""
    for place in ("images", "JPEGImages", "labels", "Annotations"):
        (folder / place).mkdir(parents=True)
    for place in ("images", "JPEGImages"):
        Image.new("RGB", (100, 50)).save(folder / place / "a.png")
    if name.startswith("labels"):
        (folder / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    if name.startswith(("labels", "data")):
        (folder / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.4\n", encoding="utf-8")
        shutil.rmtree(folder / "Annotations")
    return folder / name


# --- the run ---------------------------------------------------------------------------------------------------------


def fuzz(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[Failed]]:
    """Run `count` cases, spread over the kinds. Return how many were read and refused by kind, and the failures."""
    from fcos_cli.errors import FcosError

    (folder / "seeds").mkdir()
    table = kinds(folder / "seeds")
    places = {name: prepare(folder / name.replace(" ", "-"), kind.name) for name, kind in table.items()}
    done: Counter[str] = Counter()
    failures = []
    for number in range(count):
        name = list(table)[number % len(table)]
        content = table[name].wrap(mutate(table[name].seeds, random.Random(f"{seed} {number}")))
        places[name].write_bytes(content)
        try:
            with bounded(seconds=SECONDS, megabytes=MEGABYTES), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                table[name].read(places[name])
            done[f"{name}: read"] += 1
        except FcosError as error:
            done[f"{name}: refused"] += 1
            if not error.where:
                failures.append(Failed(name, number, f"no place: {error.what}", content))
        except (Exception, TooSlow) as error:
            failures.append(Failed(name, number, f"{type(error).__name__}: {error}", content))
    return done, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        done, failures = fuzz(options.count, options.seed, Path(folder))
    for key, number in sorted(done.items()):
        print(f"{number:6} {key}")
    for failed in failures:
        kept = Path(tempfile.gettempdir()) / f"fuzz-{options.seed}-{failed.number}"
        kept.write_bytes(failed.content)
        print(f"failed: {failed.kind} {failed.number}: {failed.reason[:300]} ({kept})")
    seconds = time.monotonic() - started
    print(f"{options.count} cases, {len(failures)} failed, {seconds:.0f} s, seed {options.seed}")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
