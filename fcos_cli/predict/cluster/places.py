"""Where files are: on this machine (or a shared file system), or in an object store whose address the user typed.

Object stores are read and written by pyarrow's file systems. Those find the credentials themselves.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import DataError, FcosError, UsageError, one_line
from fcos_cli.predict.sources.address import Address, is_address
from fcos_cli.predict.sources.open import typed_path

SCHEMES = ("s3", "gs", "file")


class StoredAddress(Address):
    """The address of one file in an object store, built from a key: it holds no secret and is shown whole."""

    def __str__(self) -> str:
        return self.url


class StoreError(DataError):
    """The store does not answer, or not as expected; the file may well be there."""


@dataclass(frozen=True)
class Place:
    """A file or a folder.

    name: as it is shown, without user, password and options of the address. system: pyarrow's file system. path: in
    that file system; absolute for one of this machine. scheme: of the address; None for a path.
    """

    name: str
    system: Any = field(repr=False)
    path: str = field(repr=False)
    scheme: str | None = None

    @property
    def is_local(self) -> bool:
        return bool(self.system.type_name == "local")

    def at(self, *names: str) -> Place:
        """A file in this folder, or further down."""
        below = "/".join(names)
        return Place(f"{self.name.rstrip('/')}/{below}", self.system, f"{self.path.rstrip('/')}/{below}", self.scheme)

    def beside(self, path: str) -> Place:
        """Another file of the same address, by its path in the file system."""
        return Place(f"{self.scheme}://{path}", self.system, path, self.scheme)

    @property
    def kind(self) -> str:
        """`file`, `folder`, or empty if there is nothing. Raises DataError if the store does not answer."""
        from pyarrow.fs import FileType

        with store_errors(self):
            found = self.system.get_file_info(self.path).type
        return {FileType.File: "file", FileType.Directory: "folder"}.get(found, "")

    def entries(self) -> list[tuple[str, bool]]:
        """Names in this folder, sorted, and whether each is a folder; none if the folder does not exist."""
        from pyarrow.fs import FileSelector, FileType

        with store_errors(self):
            found = self.system.get_file_info(FileSelector(self.path, allow_not_found=True))
        return sorted((entry.base_name, entry.type == FileType.Directory) for entry in found)

    def read(self) -> bytes:
        """All bytes of this file. Raises DataError."""
        with store_errors(self), self.system.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def open(self) -> Any:
        """This file, for reading at any place. Raises DataError."""
        with store_errors(self):
            return self.system.open_input_file(self.path)

    def write(self, content: bytes) -> None:
        """Write this file, so that it appears only once it is complete. Raises FcosError."""
        if self.is_local:
            with atomic_write(Path(self.path), binary=True) as stream:
                stream.write(content)
            return
        with write_errors(self), self.system.open_output_stream(self.path) as stream:
            stream.write(content)  # in one piece: closing the stream is what makes the object appear

    def remove(self) -> None:
        """Remove this folder and all in it."""
        with store_errors(self):
            self.system.delete_dir(self.path)


class StoredFile(io.BytesIO):
    """A file that is fetched when it is read: by the thread that decodes it, not by the one that lists it."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    def read(self, _size: int | None = -1, /) -> bytes:
        """All bytes, whatever the size. Raises DataError."""
        return self.place.read()


def as_typed(path: Path) -> str:
    """What the user typed for a path, which may be an address that lost slashes as a path: `s3:/bucket`."""
    scheme, colon, rest = str(path).partition(":/")
    if not colon or scheme not in SCHEMES:
        return str(path)
    return f"{scheme}:///{rest}" if scheme == "file" else f"{scheme}://{rest}"


def locate(text: str) -> Place:
    """The place that the user typed: a path, or an address of SCHEMES. Raises UsageError, DataError."""
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem, LocalFileSystem

    if not is_address(text):
        return Place(text, LocalFileSystem(), os.path.abspath(typed_path(text)))  # noqa: PTH100 - keeps links
    address = Address(text)
    scheme = text.partition("://")[0].lower()
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise UsageError("--engine ray cannot read this address", where=address, remedy=f"it reads {known} and paths")
    try:
        system, path = FileSystem.from_uri(text)
    except (ArrowException, OSError, ValueError) as error:
        reason = one_line(error, most=None).replace(text, "…")[:300]  # hidden first: it may hold a password
        what = f"this address cannot be opened ({reason})"
        raise DataError(what, where=address, remedy="check it, the credentials and the network") from error
    return Place(f"{scheme}://{path}", system, path, scheme)


class store_errors:  # noqa: N801 - used like a function
    """Inside the block, what pyarrow raises becomes a DataError that names the place: a StoreError, or a plain one if
    the file does not exist.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from pyarrow import ArrowException

        if isinstance(error, FileNotFoundError):
            raise DataError("the file does not exist", where=self.place.name, remedy="check the address") from error
        if isinstance(error, OSError | ArrowException):
            raise StoreError(f"cannot read this ({one_line(error)})", where=self.place.name) from error


@contextmanager
def write_errors(place: Place) -> Iterator[None]:
    """Inside the block, what pyarrow raises becomes an FcosError that names the place."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:  # Python's own error, about a source that is read meanwhile
            raise
        raise FcosError(f"writing failed ({one_line(error)})", where=place.name) from error


def walk(folder: Place) -> Iterator[Place]:
    """The files in a folder, then those of its subfolders, sorted by name, without hidden ones."""
    entries = [(name, is_folder) for name, is_folder in folder.entries() if not name.startswith(".")]
    for wanted in (False, True):
        for name, is_folder in entries:
            if is_folder is wanted:
                yield from walk(folder.at(name)) if is_folder else [folder.at(name)]
