"""Pictures are cut into partitions, none of which is lost, and a list is read as it was written."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcos_cli.predict.cluster.listing import LARGEST, SMALLEST, Entry, Listed, Listing, partitions_of, write_listing
from fcos_cli.predict.cluster.places import locate

pytest.importorskip("pyarrow")


def rows_of(entries: list[Entry]) -> list[tuple[str, int]]:
    """Each row of each entry."""
    return [(entry.source, (entry.first or 0) + row) for entry in entries for row in range(entry.rows)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), max_size=40))
def test_nothing_is_lost_doubled_or_moved(sources: list[tuple[bool, int]]) -> None:
    entries = [
        Entry(str(number), 0, first=0, rows=rows) if table else Entry(str(number), 0)
        for number, (table, rows) in enumerate(sources)
    ]
    parts = list(partitions_of(entries))
    assert rows_of(list(chain.from_iterable(parts))) == rows_of(entries)
    sizes = [len(rows_of(part)) for part in parts]
    assert all(SMALLEST <= size <= LARGEST for size in sizes[:-1])
    assert sizes[:-1] == sorted(sizes[:-1])


def test_partitions_grow_with_what_is_before_them() -> None:
    sizes = [len(part) for part in partitions_of(Entry("a", 0) for _ in range(100_000))]
    assert sizes[:64] == [16] * 64
    assert sizes[65] == 16  # 1,040 // 64
    assert max(sizes) == LARGEST
    assert len(sizes) < 500


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    entries = [Entry(f"{n}.png", 0) for n in range(20)]
    entries += [Entry("odd\udcff.png", 1, error="gone"), Entry("a.parquet", 2, first=7, rows=30)]
    place = locate(str(tmp_path / "list.arrow"))
    assert write_listing(place, entries, base="/here") == Listed(4, 51, "/here")
    listing = Listing(place)
    found = [listing.partition(number) for number in (0, 1, 2, 3)]
    assert found == list(partitions_of(entries))
    assert listing.partition(1) == found[1]
