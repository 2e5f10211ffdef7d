"""Names of output files: never a source, and never a file that somebody else wrote.

Every image, page and video that `fcos predict` writes carries a mark, so that a second run replaces what the first one
wrote and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path

from fcos_cli.data.formats.file_index import plain
from fcos_cli.errors import DataError
from fcos_cli.predict.mark import was_written_by_us
from fcos_cli.predict.sources.address import is_address
from fcos_cli.predict.sources.lists import read_list
from fcos_cli.predict.sources.open import expand_pattern, known_folder, typed_path
from fcos_cli.predict.sources.output_folder import OutputFolder

LONGEST = 150
"""Bytes of a stem in UTF-8. File systems allow 255 for the whole name, and crops append the class."""


class OutputNames:
    """Free names for the outputs of one run.

    A name is free if no file has it, or if an earlier run wrote the file and it is not a source of this one. is_source:
    whether a resolved path is a source. taken: keys of the paths that this run has chosen, shared by several instances.
    Names that differ in case only are the same: the file system may think so.
    """

    def __init__(self, is_source: Callable[[Path], bool] = lambda _: False, *, taken: set[str] | None = None) -> None:
        self._is_source = is_source
        self._taken = set[str]() if taken is None else taken
        self._stems: set[str] = set()
        self._tried: Counter[str] = Counter()  # per stem: thousands of sources may have the same name

    def another(self) -> OutputNames:
        """Names of another kind of output for the same sources."""
        return OutputNames(self._is_source, taken=self._taken)

    def choose(self, stem: str, paths: Callable[[str], list[Path]]) -> str:
        """Return a stem for the outputs of a source.

        stem: of the source; it is shortened, and numbered until it is new and all its paths are free. paths: the output
        paths for a stem.
        """
        stem = shorten(stem)
        tried = _key(stem)
        for number in count(self._tried[tried] + 1):
            name = stem if number == 1 else f"{stem}-{number}"
            if (key := _key(name)) in self._stems:
                continue
            wanted = paths(name)
            if all(self._is_free(path) for path in wanted):
                self._stems.add(key)
                self._taken.update(map(_key, wanted))
                self._tried[tried] = number
                return name
        raise AssertionError

    def _is_free(self, path: Path) -> bool:
        if _key(path) in self._taken:
            return False
        if not path.exists() and not path.is_symlink():
            return True
        return path.is_file() and was_written_by_us(path) and not self._is_source(path.resolve())


def _key(name: str | Path) -> str:
    return plain(str(name)).casefold()


def shorten(stem: str, *, end: str = "", most: int = LONGEST) -> str:
    """Cut a stem, between characters, so that it has at most `most` bytes with `end`, which is appended whole."""
    encoded, most = stem.encode("utf-8", "surrogateescape"), most - len(end)
    return (stem if len(encoded) <= most else encoded[:most].decode("utf-8", "ignore")) + end


def source_test(sources: Sequence[str], *, leave_out: OutputFolder | None = None) -> Callable[[Path], bool]:
    """Return a test whether a resolved path, of a file with the mark, belongs to `sources`.

    sources, leave_out: as in `open_sources`. They are expanded only when the test is first called, which is rare. Any
    file may be listed in a pipe, which cannot be read twice. On stdin, what an earlier run wrote is not a source.
    """
    hides: Callable[..., bool] = (lambda _file, **_: False) if leave_out is None else leave_out.hides
    expanded = cache(lambda: _expand(sources, hides))
    listed_in_pipe = cache(lambda: any(map(_is_pipe, sources)))

    def is_source(path: Path) -> bool:
        if ("-" in sources and leave_out is None) or listed_in_pipe():
            return True
        folders, files = expanded()
        walked = any(path.is_relative_to(folder) and not hides(path, named=folder) for folder in folders)
        return path in files or walked

    return is_source


def _is_pipe(source: str) -> bool:
    path = Path(source)
    return path.suffix.lower() == ".txt" and path.exists() and not path.is_file()


def _expand(sources: Sequence[str], hides: Callable[..., bool]) -> tuple[list[Path], set[Path]]:
    """The folders and the files that `sources` name, resolved. hides: see `OutputFolder.hides`."""
    folders: list[Path] = []
    files: set[Path] = set()
    for source in sources:
        if is_address(source):
            continue
        with suppress(OSError, DataError, ValueError):
            path = typed_path(source)
            if path.is_dir():
                folders.append(path.resolve())
            elif path.suffix.lower() == ".txt":
                files.update(entry.resolve() for entry in read_list(path) if isinstance(entry, Path))
            elif path.exists():
                files.add(path.resolve())
            else:
                named = known_folder(path)
                files.update(file.resolve() for file in expand_pattern(path) if not hides(file, named=named))
    return folders, files
