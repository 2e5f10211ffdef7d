"""ClassTable: class index ↔ data-set category id ↔ name. The only place where ids change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fcos_cli.errors import ModelError


@dataclass(frozen=True)
class ClassTable:
    """Class `index` 0…C-1 has the name `names[index]` and the data-set category id `ids[index]`.

    Ids can be sparse, unsorted and start anywhere, but ids and names are unique. The order of the table is the order of
    the network's class channels. There is no background class.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ids):
            raise ModelError(f"class table has {len(self.names)} names but {len(self.ids)} ids")
        for label, values in (("name", self.names), ("id", self.ids)):
            if len(set(values)) != len(values):
                repeated = next(v for v in values if list(values).count(v) > 1)
                raise ModelError(f"class table has the {label} {repeated!r} twice")

    @classmethod
    def from_names(cls, names: Iterable[str], *, first_id: int = 0) -> ClassTable:
        """A table with consecutive ids from `first_id`, in the order of `names`."""
        listed = tuple(names)
        return cls(listed, tuple(range(first_id, first_id + len(listed))))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index_of_id(self) -> dict[int, int]:
        return {category_id: index for index, category_id in enumerate(self.ids)}

    @cached_property
    def index_of_name(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def match(self, other: ClassTable) -> list[int | None]:
        """For each class of this table, the index of the class with the same name in `other`, or None."""
        return [other.index_of_name.get(name) for name in self.names]

    def to_json(self) -> list[dict[str, Any]]:
        return [{"id": i, "name": n} for i, n in zip(self.ids, self.names, strict=True)]

    @classmethod
    def from_json(cls, rows: Sequence[dict[str, Any]]) -> ClassTable:
        return cls(tuple(whole_characters(str(r["name"])) for r in rows), tuple(int(r["id"]) for r in rows))


def whole_characters(name: str) -> str:
    """The name with `?` for each half of a character, which JSON can hold (`"\\ud800"`) but no file of text."""
    return name.encode("utf-8", "replace").decode("utf-8")
