"""Problems that readers notice: how many of each kind there are, and where the first ones are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from fcos_cli.data.samples import Finding, Severity

CHECKED_IMAGES = 200  # images whose file is compared with the annotations
EXAMPLES = 3
LONGEST = 200  # characters of a place; a name in a damaged file can have millions

KINDS: dict[str, tuple[Severity, str, str]] = {  # the most severe first
    "missing-image": ("error", "images in the annotations but not on disk, skipped", "restore the files"),
    "unreadable-image": ("error", "images that cannot be read", "replace them or remove them from the data set"),
    "unknown-category": ("error", "boxes of an undeclared class, dropped", "declare the class"),
    "unknown-image": ("error", "boxes of an image that the file does not list, dropped", "list the image"),
    "malformed-row": ("error", "rows that cannot be parsed as a box, dropped", "correct these rows"),
    "non-finite-box": ("error", "boxes with NaN or infinite coordinates, dropped", "correct these boxes"),
    "unread-format": ("warning", "pictures in formats that cannot be read, left out", "convert them to JPEG or PNG"),
    "unclear-image-folder": (
        "warning",
        "annotation files that match the images of several folders, of which one is used",
        "move the folder of other pictures (masks, thumbnails) away, or rename the right one to `images`",
    ),
    "degenerate-box": ("warning", "boxes with zero width or height, dropped", "correct or remove these boxes"),
    "box-outside": ("warning", "boxes completely outside their image, dropped", "check the units and the image size"),
    "box-clipped": (
        "warning",
        "boxes more than 1 px outside their image, clipped",
        "correct them if there are many; a few are harmless",
    ),
    "mostly-clipped": (
        "warning",
        "most boxes are more than 1 px outside their image, and were clipped",
        "check the numbers: COCO has x, y, width, height; YOLO center x, center y, width, height; VOC two corners",
    ),
    "duplicate-box": ("warning", "duplicate boxes (same class and coordinates), dropped", "remove the duplicates"),
    "size-mismatch": (
        "warning",
        f"images whose size (after EXIF orientation) differs from the annotations, of up to {CHECKED_IMAGES} checked",
        "if width and height are swapped, the boxes were drawn before EXIF rotation: rotate the files or the boxes",
    ),
    "more-frames": (
        "warning",
        f"images with several pages or frames, of which the first is used, of up to {CHECKED_IMAGES} checked",
        "save each page or frame as an image of its own if its objects are labelled",
    ),
    "other-shape": (
        "warning",
        "shapes that cannot be turned into boxes (points, lines), dropped",
        "draw rectangles or polygons instead",
    ),
    "other-json": ("warning", "JSON files without `shapes`, which are not LabelMe's, left out", "move them elsewhere"),
    "class-not-in-table": ("warning", "boxes of classes missing from the class table, dropped", "check the names"),
    "unclear-flag": (
        "warning",
        "values of `difficult` or `iscrowd` that are neither yes nor no, treated as no",
        "write 0 or 1",
    ),
    "image-listed-twice": ("warning", "images listed twice, whose boxes were merged", "list each image once"),
    "shared-label": (
        "warning",
        "images that have the label file of another image, and so its boxes too",
        "remove masks and copies from the images, or give each image a name and a label file of its own",
    ),
    "ambiguous-path": (
        "warning",
        "paths that match two folders, of which the one beside the data.yaml is used",
        "leave out `..` if that is right; otherwise write the whole path",
    ),
    "label-without-image": (
        "warning",
        "label files that match no image, so their boxes are not used",
        "give each label file the name of its image",
    ),
    "mostly-unlabelled": (
        "warning",
        "most images have no label file, and are kept as images without objects",
        "check that the label files are where they belong, if these images show objects",
    ),
    "no-label-file": (
        "info",
        "images without a label file, kept as images without objects",
        "label them if they show objects; otherwise nothing needs to be done",
    ),
    "not-labelled": ("info", "images without a JSON file, left out", "label them if they should be used"),
    "shape-as-box": (
        "info",
        "polygons, circles, masks and rotated boxes, replaced by the upright boxes around them",
        "nothing needs to be done; draw rectangles where the box around the shape is not the one you want",
    ),
    "ids-renumbered": (
        "info",
        "images renumbered 1, 2, 3, … because their own ids cannot be used",
        "give each image a unique whole number as its id if you need it in results",
    ),
}


class Notes:
    """Counts problems noticed while reading and keeps the first few locations of each kind.

    Kinds are the keys of `KINDS`.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._places: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, place: str, *, count: int = 1) -> None:
        self._counts[kind] += count
        if len(self._places[kind]) < EXAMPLES:
            self._places[kind].append(place if len(place) <= LONGEST else f"{place[:LONGEST]}…")

    def findings(self) -> list[Finding]:
        """Return one finding per kind, most severe first."""
        order = list(KINDS)
        findings = []
        for kind in sorted(self._counts, key=order.index):
            severity, message, remedy = KINDS[kind]
            more = ", …" if self._counts[kind] > len(self._places[kind]) else ""
            place = ", ".join(self._places[kind]) + more
            findings.append(Finding(kind, severity, place, f"{message}: {self._counts[kind]}", remedy))
        return findings


def note_unlabelled(names: Sequence[str], notes: Notes, *, images: int) -> None:
    """Note images without a label file; images: the number of all."""
    kind = "mostly-unlabelled" if 2 * len(names) > images else "no-label-file"
    for name in names:
        notes.add(kind, name)


_YES, _NO = {"1", "1.0", "true", "yes"}, {"", "0", "0.0", "false", "no", "none", "null", "unspecified"}


def is_set(value: object, notes: Notes, *, place: str) -> bool:
    """Whether a flag (`difficult`, `iscrowd`) says yes: 1, true or yes. Anything unclear is noted."""
    text = "" if value is None else str(value).strip().lower()
    if text not in _YES and text not in _NO:
        notes.add("unclear-flag", f"{place} {value!r:.30}")
    return text in _YES
