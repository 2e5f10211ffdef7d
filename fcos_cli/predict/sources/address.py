"""Addresses of pictures and streams, which may hold passwords: what is shown and saved is never the whole address."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from fcos_cli.errors import DataError

SCHEMES = ("http", "https", "rtsp", "rtsps")
STORES = ("s3", "gs")
"""Kinds of addresses that only --engine ray reads."""
_BEGINNING = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


@dataclass(frozen=True)
class Address:
    """An address that the user typed.

    url: all of it; only the connection may use it. As text it is the address without user, password, query and
    fragment, any of which may be a secret.
    """

    url: str = field(repr=False)

    def __str__(self) -> str:
        parts = _split(self.url)
        return f"{parts.scheme}://{_host(parts)}{parts.path}{'?…' if parts.query else ''}"

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def stem(self) -> str:
        """The last part of the path as part of a file name, or else the host; never empty, without a separator."""
        last = PurePosixPath(unquote(_split(self.url).path)).stem
        return re.sub(r"[^\w.-]+", "-", last).strip(".-") or re.sub(r"[^\w.-]+", "-", _host(_split(self.url)))

    @property
    def suffix(self) -> str:
        """Suffix of the path, `.jpg`, or empty."""
        return PurePosixPath(_split(self.url).path).suffix

    def check(self) -> None:
        """Raise DataError unless this is a whole address of a known kind."""
        try:
            valid, _ = bool(self.parts.hostname), self.parts.port
        except ValueError:
            valid = False
        if not valid or _split(self.url).scheme not in SCHEMES:
            what = "this address cannot be read"
            remedy = f"use an address like http://host/path or rtsp://host/path; known are {', '.join(SCHEMES)}"
            if _split(self.url).scheme in STORES:
                remedy = "add --engine ray, which reads s3:// and gs://"
            raise DataError(what, where=self, remedy=remedy)


Source = Path | Address
"""Where a picture or a frame comes from; as text, it is safe to print and to save."""


def is_address(text: str) -> bool:
    """Return whether a source is an address, of any kind, and not a path."""
    return _BEGINNING.match(text) is not None


def _split(url: str) -> SplitResult:
    """The parts of an address, also of one that is not valid."""
    try:
        return urlsplit(url)
    except ValueError:  # a bracket that is not closed: everything after the scheme may be a secret
        return SplitResult(url.partition("://")[0].lower(), "…", "", "", "")


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]
