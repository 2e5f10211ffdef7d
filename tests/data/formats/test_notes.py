"""What readers notice becomes findings with a severity, places and a remedy."""

import pytest

from fcos_cli.data.formats.notes import KINDS, Notes


@pytest.mark.parametrize("kind", KINDS)
def test_every_finding_says_what_to_do(kind: str) -> None:
    notes = Notes()
    notes.add(kind, "a.png")
    (finding,) = notes.findings()
    assert finding.remedy
