"""What readers notice becomes findings with a severity, places and a remedy."""

import pytest

from fcos_cli.data.formats.notes import KINDS, Notes


@pytest.mark.parametrize("kind", KINDS)
def test_every_finding_says_what_to_do(kind: str) -> None:
    notes = Notes()
    notes.add(kind, "a.png")
    (finding,) = notes.findings()
    assert finding.remedy


def test_the_most_severe_findings_come_first() -> None:
    notes = Notes()
    for kind in reversed(KINDS):
        notes.add(kind, "a.png")
    severities = [finding.severity for finding in notes.findings()]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
