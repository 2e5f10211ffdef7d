"""Which files exist, under the names that annotations use for them."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from fcos_cli.data.images import IMAGE_SUFFIXES


class FileIndex:
    """Which files exist, using one directory listing per folder instead of one stat call per file.

    A name also fits if it is the same text in another Unicode form or percent-encoded (`a%20b`), as by some tools.
    """

    def __init__(self) -> None:
        self._listed: dict[Path, list[str]] = {}
        self._known: dict[Path, set[str]] = {}
        self._plain: dict[Path, dict[str, str]] = {}
        self._stems: dict[Path, dict[str, str]] = {}
        self._texts: dict[Path, dict[str, str]] = {}
        self._cases: dict[Path, defaultdict[str, list[str]]] = {}
        self._denied: PermissionError | None = None

    def __contains__(self, file: Path) -> bool:
        folder = file.parent
        if folder not in self._known:
            self._known[folder] = set(self._names(folder))
        return file.name in self._known[folder]

    def find(self, file: Path) -> Path | None:
        """Return the file, or the one whose name is the same text; None if there is none."""
        if file in self:
            return file
        folder = file.parent
        if folder not in self._plain:
            self._plain[folder] = {plain(name): name for name in self._names(folder)}
        name = self._plain[folder].get(plain(file.name))
        return None if name is None else folder / name

    def find_any_case(self, file: Path) -> Path | None:
        """Return the one file whose name is the same text but for its case; None if there is none, or several."""
        folder = file.parent
        if folder not in self._cases:
            self._cases[folder] = defaultdict(list)
            for name in self._names(folder):
                self._cases[folder][plain(name).casefold()].append(name)
        names = self._cases[folder].get(plain(file.name).casefold(), ())
        return folder / names[0] if len(names) == 1 else None

    def check_missing(self) -> None:
        """Raise PermissionError if a file seems to be missing, but a folder where it may be cannot be read."""
        if self._denied is not None:
            raise self._denied

    def labels(self, folder: Path) -> dict[str, str]:
        """Map the plain stem of an image to its label file (.txt) in a folder: `a.txt`, else `a.TXT` or `a.png.txt`.

        `a.png.txt` is also there under its own stem, `a.png`.
        """
        if folder not in self._texts:
            names = [name for name in self._names(folder) if name[0] != "." and name.lower().endswith(".txt")]
            loose = {plain(_without_image_suffix(name[:-4])): name for name in names}
            exact = {plain(name[:-4]): name for name in names if name.endswith(".txt")}
            self._texts[folder] = {**loose, **exact}
        return self._texts[folder]

    def images(self, folder: Path) -> dict[str, str]:
        """Map stem → file name for the images in a folder, sorted; empty if the folder does not exist.

        Of `a.jpg` and `a.png`, the first counts: the other one is usually a mask.
        """
        if folder not in self._stems:
            self._stems[folder] = {}
            for name in self.image_names(folder):
                self._stems[folder].setdefault(Path(name).stem, name)
        return self._stems[folder]

    def image_names(self, folder: Path) -> list[str]:
        """The names of all images in a folder, sorted; none if the folder does not exist."""
        names = self._names(folder)
        return [name for name in names if name[0] != "." and Path(name).suffix.lower() in IMAGE_SUFFIXES]

    def _names(self, folder: Path) -> list[str]:
        if folder not in self._listed:
            # not iterdir(): a Path per file would double the time for 100,000 images
            try:
                self._listed[folder] = sorted(os.listdir(folder))  # noqa: PTH208
            except (OSError, ValueError) as error:  # no such folder, or a name that no folder can have
                self._listed[folder] = []
                if isinstance(error, PermissionError):
                    self._denied = self._denied or error
        return self._listed[folder]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that tools hide: `.ipynb_checkpoints`, `._a.xml`, `@eaDir`, `lost+found`."""
    return name.startswith((".", "@eaDir")) or name == "lost+found"


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, in a fixed order, without hidden ones.

    Links to folders are followed, except back to a parent. No folder is entered twice: one that is inside `folder`
    keeps its own path, and of several links to another, the first counts. Raises PermissionError if one cannot be read.
    """
    root, entered, listed = folder.resolve(), set[Path](), list[tuple[Path, list[str]]]()
    starts = deque([folder])  # real folders come before linked ones
    while starts:
        for place, subfolders, names in os.walk(starts.popleft(), onerror=_raise_denied):
            parent, real = Path(place), Path(place).resolve()
            if real in entered:
                subfolders.clear()
                continue
            entered.add(real)
            listed.append((parent, names))
            subfolders[:] = [name for name in subfolders if not is_hidden(name)]
            links = [parent / name for name in sorted(subfolders) if (parent / name).is_symlink()]
            starts.extend(link for link in links if not _contains(link.resolve(), (root, real)))
    for parent, names in sorted(listed, key=lambda item: item[0].parts):
        yield from (parent / name for name in sorted(names) if not is_hidden(name))


def _raise_denied(error: OSError) -> None:
    if isinstance(error, PermissionError):
        raise error


def _contains(folder: Path, others: Iterable[Path]) -> bool:
    return any(other.is_relative_to(folder) for other in others)


def plain(name: str) -> str:
    """A file name without percent-encoding, in Unicode's composed form."""
    return unicodedata.normalize("NFC", unquote(name))


def _without_image_suffix(stem: str) -> str:
    path = Path(stem)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else stem
