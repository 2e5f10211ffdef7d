"""The exception tree. Each error says what happened, where, and what to do, and has an exit code.

FcosError            1  something failed at run time
├── UsageError       2  a flag, a config key or a combination of them is wrong
├── DataError        3  images or annotations cannot be used
├── ModelError       4  a model file or its weights cannot be used
├── ParityError      5  an exported model gives different results from its reference
├── GateError        6  a model does not reach what was required of it
├── MissingExtra     2  an optional dependency is not installed
├── Interrupted    130  Ctrl-C
└── Stopped        143  SIGTERM, after the state was saved
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

LONGEST = 1000  # characters of a part of a message
NAMES = 12  # listed in a remedy


class FcosError(Exception):
    """An error the user can act on.

    `what` is one sentence without a final period; `where` names the file, line or key; `remedy` says what to do. Very
    long ones, which repeat what is in a damaged file, are shortened. `details`: a list that belongs to `where`, line by
    line; all of it is printed. `shared`: whether all processes of a run raise it; `elsewhere`: whether another of them
    shows it.
    """

    exit_code = 1
    shared = elsewhere = False

    def __init__(
        self, what: str, *, where: object = None, remedy: str | None = None, details: Iterable[str] = ()
    ) -> None:
        super().__init__(what)
        self.what = _shorten(what)
        self.where = None if where is None else _shorten(str(where))
        self.remedy = remedy
        self.details = tuple(map(_shorten, details))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the arguments of `__init__`, which differ from class to class."""
        return copyreg.__newobj__, (type(self), self.what), vars(self)  # type: ignore[attr-defined]

    @property
    def brief(self) -> str:
        """What happened and where, in one line."""
        return self.what if self.where is None else f"{self.what}: {self.where}"

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"where: {self.where}")
        parts += [f"  {line}" for line in self.details]
        if self.remedy:
            parts.append(f"remedy: {self.remedy}")
        return "\n".join(parts)


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


class UsageError(FcosError):
    exit_code = 2


class DataError(FcosError):
    exit_code = 3


class ModelError(FcosError):
    exit_code = 4


class ParityError(FcosError):
    exit_code = 5


class GateError(FcosError):
    """A requirement of `fcos eval` is not met. Everything else was done and written before."""

    exit_code = 6


class MissingExtra(FcosError):
    """An optional dependency is not installed; the remedy is the command that installs its extra.

    instead: what works without it, as an imperative.
    """

    exit_code = 2

    def __init__(self, what: str, *, extra: str, where: object = None, instead: str | None = None) -> None:
        command = f'pip install "fcos-cli[{extra}]"'
        super().__init__(what, where=where, remedy=command if instead is None else f"{command}, or {instead}")


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: object) -> UsageError:
    """The error for an unknown name that the user typed, with the nearest known one, or else the first few."""
    names = list(known)
    same = [other for other in names if other.casefold() == name.casefold()]
    near = same or get_close_matches(name, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(names[:NAMES])}"
    remedy += ", …" if not near and len(names) > NAMES else ""
    return UsageError(f"unknown {kind} {name!r}", where=where, remedy=remedy)


def one_line(error: BaseException, *, most: int | None = 300) -> str:
    """What an error of a library says, in one line of at most `most` characters; its type if it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what an error of a library says; its type if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class Interrupted(FcosError):
    exit_code = 130


class Stopped(FcosError):
    exit_code = 143
