"""Names of tensors in two languages: rows of templates, read in either direction.

A template is a name with holes: `{i}` a whole number, `{k+1}` and `{3i}` numbers from which it is computed, `{tail}` a
last part without dots, `{rest}` any text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

Row = tuple[str, str]
"""(their template, ours) with holes of the same names."""

_HOLE = re.compile(r"\{(\d*)([a-z]+)([+]\d+)?\}")
_TEXT = {"tail": r"[a-z_]+", "rest": r".+"}


@dataclass(frozen=True)
class KeyMap:
    """Their names ↔ ours. The first row that fits wins."""

    rows: tuple[Row, ...]

    def to_ours(self, key: str) -> str | None:
        return _translate(key, self.rows)

    def to_theirs(self, key: str) -> str | None:
        return _translate(key, tuple((ours, theirs) for theirs, ours in self.rows))


def _translate(key: str, rows: tuple[Row, ...]) -> str | None:
    for source, target in rows:
        values = _read(source, key)
        if values is not None:
            return _write(target, values)
    return None


def _read(template: str, key: str) -> dict[str, str | int] | None:
    """What stands in the template's holes, or None where `key` does not fit it."""
    pattern, holes = _compiled(template)
    found = pattern.fullmatch(key)
    if found is None:
        return None
    values: dict[str, str | int] = {}
    for (factor, name, offset), text in zip(holes, found.groups(), strict=True):
        if name in _TEXT:
            values[name] = text
            continue
        number, left = divmod(int(text) - offset, factor)
        if number < 0 or left:
            return None
        values[name] = number
    return values


def _write(template: str, values: dict[str, str | int]) -> str:
    def fill(hole: re.Match[str]) -> str:
        value = values[hole[2]]
        return value if isinstance(value, str) else str(int(hole[1] or 1) * value + int(hole[3] or 0))

    return _HOLE.sub(fill, template)


@cache
def _compiled(template: str) -> tuple[re.Pattern[str], list[tuple[int, str, int]]]:
    pattern, holes, end = "", [], 0
    for hole in _HOLE.finditer(template):
        pattern += re.escape(template[end : hole.start()]) + f"({_TEXT.get(hole[2], '[0-9]+')})"
        holes.append((int(hole[1] or 1), hole[2], int(hole[3] or 0)))
        end = hole.end()
    return re.compile(pattern + re.escape(template[end:])), holes
