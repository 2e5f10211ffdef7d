"""Translation of tensor names in both directions by a table of templates.

A template is a name with placeholders: `{i}` is an integer, `{k+1}` and `{3i}` are integers computed from one, `{tail}`
is a last component without dots, `{rest}` is any text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

Row = tuple[str, str]
"""(foreign template, native template) with the same placeholders."""

_PLACEHOLDER = re.compile(r"\{(\d*)([a-z]+)([+]\d+)?\}")
_TEXT = {"tail": r"[a-z_]+", "rest": r".+"}


@dataclass(frozen=True)
class KeyMap:
    """Mapping between foreign and native names. The first matching row is used.

    deformable: more rows, for the tensors of deformable convolutions. Some families have other names for the weights of
    these convolutions than for those of ordinary ones; the native name is the same.
    """

    rows: tuple[Row, ...]
    deformable: tuple[Row, ...] = ()

    def to_native(self, key: str) -> str | None:
        return _translate(key, self.rows + self.deformable)

    def to_foreign(self, key: str, *, deformable: bool = False) -> str | None:
        """deformable: whether the tensor belongs to a deformable convolution."""
        rows = self.deformable + self.rows if deformable else self.rows
        return _translate(key, tuple((native, foreign) for foreign, native in rows))

    def to_all_foreign(self, keys: Iterable[str]) -> dict[str, str | None]:
        """The foreign name of each native name. The names of the offsets tell which convolutions are deformable."""
        names = list(keys)
        places = tuple(key.removesuffix("offset.weight") for key in names if key.endswith(".offset.weight"))
        return {key: self.to_foreign(key, deformable=key.startswith(places)) for key in names}


def _translate(key: str, rows: tuple[Row, ...]) -> str | None:
    for source, target in rows:
        values = _parse(source, key)
        if values is not None:
            return _fill(target, values)
    return None


def _parse(template: str, key: str) -> dict[str, str | int] | None:
    """Return the values of the template's placeholders, or None if `key` does not match."""
    pattern, placeholders = _compile(template)
    match = pattern.fullmatch(key)
    if match is None:
        return None
    values: dict[str, str | int] = {}
    for (factor, name, offset), text in zip(placeholders, match.groups(), strict=True):
        if name in _TEXT:
            values[name] = text
            continue
        number, remainder = divmod(int(text) - offset, factor)
        if number < 0 or remainder:
            return None
        values[name] = number
    return values


def _fill(template: str, values: dict[str, str | int]) -> str:
    def fill(placeholder: re.Match[str]) -> str:
        value = values[placeholder[2]]
        return value if isinstance(value, str) else str(int(placeholder[1] or 1) * value + int(placeholder[3] or 0))

    return _PLACEHOLDER.sub(fill, template)


@cache
def _compile(template: str) -> tuple[re.Pattern[str], list[tuple[int, str, int]]]:
    pattern, placeholders, end = "", [], 0
    for placeholder in _PLACEHOLDER.finditer(template):
        pattern += re.escape(template[end : placeholder.start()]) + f"({_TEXT.get(placeholder[2], '[0-9]+')})"
        placeholders.append((int(placeholder[1] or 1), placeholder[2], int(placeholder[3] or 0)))
        end = placeholder.end()
    return re.compile(pattern + re.escape(template[end:])), placeholders
