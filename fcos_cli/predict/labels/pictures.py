"""The pictures of a data set that is written: what they contain, what they are called, and which are in it already.

Notable choices:
- JPEG and PNG files, which every labelling tool reads, are copied byte for byte, JPEG with its EXIF rotation. All
  others (also PNG with EXIF rotation, which tools treat differently, and pictures from an address or stdin) become PNG
  with the pixels that the detector saw, frames of videos JPEG. So boxes and pixels always fit together.
- Names are unique in the whole data set, even ignoring case, Unicode forms and percent-encoding, because label files
  are found by them.
"""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcos_cli.data.formats.file_index import plain
from fcos_cli.data.images import IMAGE_SUFFIXES, kind_if_plain
from fcos_cli.predict.outputs import shorten
from fcos_cli.predict.pipeline import Prediction
from fcos_cli.predict.sources.lists import STDIN

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\\\]")
"""Characters that an annotation file cannot hold, or reads differently."""


class Content(NamedTuple):
    """The bytes of a picture. suffix: with its dot. file: whose bytes they are; None if they are new."""

    data: bytes
    suffix: str
    file: Path | None


def content_of(prediction: Prediction) -> Content:
    """Return what is written for a prediction, which must carry its image."""
    image, source = prediction.image, prediction.source
    if image is None:
        raise ValueError("the prediction has no image")
    if prediction.moment is not None:
        return Content(_encode(image, "JPEG"), ".jpg", None)
    kind = kind_if_plain(source) if isinstance(source, Path) and source != STDIN else None
    if kind is None or not isinstance(source, Path):
        return Content(_encode(image, "PNG"), ".png", None)
    usual = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",)}[kind]
    return Content(source.read_bytes(), source.suffix if source.suffix.lower() in usual else usual[0], source)


def stem_of(prediction: Prediction) -> str:
    """A stem for a picture, that of its source; frames also have their number."""
    stem, number = _UNSAFE.sub("_", prediction.source.stem).strip(), ""
    if prediction.moment is not None:
        stem, number = stem.replace(":", "-"), f"-{prediction.moment.number:06}"
    if not f"{stem}{number}" or stem.startswith((".", "@eaDir")):  # which readers pass over as hidden
        stem = f"_{stem}"
    return shorten(stem, end=number)


class Pictures:
    """The pictures of a data set, and the names that are taken.

    folders: where its pictures are. taken: stems in use. listed: pictures that are in a split; None if that is not
    known: then all count as listed.
    """

    def __init__(self, folders: Iterable[Path], taken: Iterable[str], *, listed: Iterable[Path] | None = None) -> None:
        self._by_size: defaultdict[int, list[Path]] = defaultdict(list)
        self._taken = {_key(stem) for stem in taken}
        self._tried: Counter[str] = Counter()  # per stem: thousands of pictures may have the same name
        self._all_listed = listed is None
        self._listed: defaultdict[str, list[Path]] = defaultdict(list)
        for path in listed or ():
            self._listed[_key(path.stem)].append(path)
        for path in dict.fromkeys(path for folder in folders for path in _images_below(folder)):
            with suppress(OSError):
                self._by_size[path.stat().st_size].append(path)

    def same(self, data: bytes) -> Path | None:
        """Return the picture of the data set with these bytes, None if there is none."""
        return next((path for path in self._with(data) if self._all_listed or self._is_listed(path)), None)

    def unlisted(self, data: bytes, folder: Path) -> Path | None:
        """Return a picture with these bytes that lies in `folder`, but is not in the data set; None if there is none.

        Also None if a picture of the data set has its stem, by which label files are found.
        """
        if not folder.is_dir():
            return None
        free = (path for path in self._with(data) if path.name[0] != "." and not self._listed.get(_key(path.stem)))
        return next((path for path in free if path.parent.samefile(folder)), None)

    def _with(self, data: bytes) -> Iterator[Path]:
        for path in self._by_size.get(len(data), ()):
            with suppress(OSError):
                if path.read_bytes() == data:
                    yield path

    def _is_listed(self, path: Path) -> bool:
        named = (other for other in self._listed.get(_key(path.stem), ()) if other.name == path.name)
        return any(other.parent.samefile(path.parent) for other in named)

    def choose(self, stem: str) -> str:
        """Return a free stem: this one, numbered if it is taken."""
        tried = _key(stem)
        for number in count(self._tried[tried] + 1):
            name = stem if number == 1 else f"{stem}-{number}"
            if (key := _key(name)) not in self._taken:
                self._taken.add(key)
                self._tried[tried] = number
                return name
        raise AssertionError

    def add(self, path: Path, size: int) -> None:
        """Remember a picture of `size` bytes that is in the data set from now on."""
        self._by_size[size].append(path)
        self._listed[_key(path.stem)].append(path)


def _key(stem: str) -> str:
    return plain(stem).casefold()


def _images_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _encode(image: npt.NDArray[np.uint8], kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, quality=95, subsampling=0)
    return stream.getvalue()
