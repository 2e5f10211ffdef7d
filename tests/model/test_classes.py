"""Class tables: ids in JSON, matching by name, invalid tables."""

import pytest

from fcos_cli.errors import ModelError
from fcos_cli.model.classes import ClassTable


def test_sparse_and_unsorted_ids_survive_json() -> None:
    table = ClassTable(("dog", "cat", "emu"), (90, 3, 17))
    assert ClassTable.from_json(table.to_json()) == table
    assert table.index_of_id == {90: 0, 3: 1, 17: 2}


def test_classes_are_matched_by_name() -> None:
    model = ClassTable(("dog", "cat"), (1, 2))
    data = ClassTable(("emu", "cat", "dog"), (7, 8, 9))
    assert data.match(model) == [None, 1, 0]


@pytest.mark.parametrize(("names", "ids"), [(("a", "a"), (1, 2)), (("a", "b"), (1, 1)), (("a",), (1, 2))])
def test_duplicate_names_or_ids_are_refused(names: tuple[str, ...], ids: tuple[int, ...]) -> None:
    with pytest.raises(ModelError):
        ClassTable(names, ids)
