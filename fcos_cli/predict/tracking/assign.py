"""The assignment problem: which row goes with which column, so that the sum of the gains is as large as possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def assign(gain: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Return pairs (row, column) with the largest sum of `gain` [R, C], sorted. Each row and column is
    used once at most.

    Pairs without gain (≤ 0) are left out. The shortest augmenting path is found for each row in turn, with potentials
    of rows and columns (Jonker and Volgenant, Computing 38, 1987), so the result is exact, and always the same.
    """
    useful = gain > 0
    rows, columns = np.flatnonzero(useful.any(axis=1)), np.flatnonzero(useful.any(axis=0))
    cost = -np.clip(gain[np.ix_(rows, columns)], 0, None)
    if len(rows) > len(columns):
        pairs = [(int(rows[row]), int(columns[column])) for column, row in _cheapest(cost.T)]
    else:
        pairs = [(int(rows[row]), int(columns[column])) for row, column in _cheapest(cost)]
    return sorted(pair for pair in pairs if useful[pair])


def _cheapest(cost: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Assign a column to every row of `cost` [R, C], R ≤ C, with the smallest sum."""
    row_count, column_count = cost.shape
    of_row, of_column = np.zeros(row_count), np.zeros(column_count)  # potentials
    owner = np.full(column_count, -1)
    for row in range(row_count):
        distance, previous = np.full(column_count, np.inf), np.full(column_count, -1)
        reached = np.zeros(column_count, bool)
        here, end = row, -1
        length = 0.0
        while True:
            through = length + cost[here] - of_row[here] - of_column
            shorter = ~reached & (through < distance)
            distance[shorter], previous[shorter] = through[shorter], end
            end = int(np.where(reached, np.inf, distance).argmin())
            length = distance[end]
            if owner[end] < 0:
                break
            reached[end], here = True, owner[end]
        of_row[row] += length
        of_row[owner[reached]] += length - distance[reached]
        of_column[reached] -= length - distance[reached]
        while end >= 0:  # hand each column on the path to the row before it
            before = previous[end]
            owner[end] = row if before < 0 else owner[before]
            end = before
    return [(int(row), column) for column, row in enumerate(owner) if row >= 0]
