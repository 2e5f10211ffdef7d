"""Images on disk that no annotation file names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fcos_cli.data.doctor import some
from fcos_cli.data.formats.file_index import is_hidden
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.data.samples import Dataset, Finding
from fcos_cli.errors import DataError


def unlisted_images(path: Path, datasets: Sequence[Dataset]) -> list[Finding]:
    """Find images beside those of `datasets`, the train and val splits read from `path`, that are in no split.

    Only COCO and VOC data sets name their images, and the reader of LabelMe notes those without labels itself; and one
    COCO file says nothing about images of other files.
    """
    if not path.is_dir() or any(dataset.format in ("yolo", "labelme") for dataset in datasets):
        return []
    left = _beside([sample.image for dataset in datasets for sample in dataset.samples])
    if left:  # there may be more splits
        with suppress(DataError):
            left -= {sample.image for sample in read_dataset(path, split="all").samples}
    if not left:
        return []
    message = f"images that no annotation file names, not used: {len(left)}"
    remedy = "label and list them if they belong to the data set; otherwise nothing needs to be done"
    return [Finding("unlisted-image", "info", some(sorted(file.name for file in left)), message, remedy)]


def _beside(images: Sequence[Path]) -> set[Path]:
    """Image files in the folders of `images` that are not among them."""
    listed = set(images)
    folders = {image.parent for image in images}
    files = (file for folder in folders for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    return {file for file in files if file not in listed and file.is_file() and not is_hidden(file.name)}
