"""The tables of `fcos eval`."""

from __future__ import annotations

import pytest

from fcos_cli.evaluate.compare import ClassDifference, Comparison, Difference
from fcos_cli.evaluate.tables import print_comparison

WORST = Difference(1.0, 0.0, -1.0, -1.0, -0.99, 0.0, 20)
ABSENT = Difference(-1.0, -1.0, None, None, None, None, 0)
FEW = Difference(0.25, 0.5, 0.25, None, None, None, 2)


def test_a_difference_of_minus_one_is_a_number_and_what_is_not_measured_a_dash(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_comparison(
        Comparison({"AP": WORST, "APs": ABSENT}, [ClassDifference("cat", 1, FEW, FEW)]), ["x/a", "y/a"], place="data"
    )
    lines = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert ["AP", "1.000", "0.000", "-1.000", "-1.000", "-0.990"] in lines
    assert ["APs", *"–––––"] in lines
    assert ["cat", "0.250", "0.500", "+0.250", "–", "–"] in lines
