"""Saved tracks of synthetic clips, judged by TrackEval's MOTA, IDF1 and HOTA. Skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.predict.tracking.measured import SCENES, Rows, metrics, read_tracks, save_tracks, truth

pytest.importorskip("trackeval", reason="trackeval is not installed (pip install trackeval)")

CROWD = "20 objects, some missed"


def tracks_of(name: str, file: Path) -> Rows:
    save_tracks(SCENES[name], file)
    return read_tracks(file)


def test_the_truth_itself_is_perfect() -> None:
    rows = truth(SCENES[CROWD])
    assert metrics(rows, rows) == pytest.approx({"MOTA": 1, "IDF1": 1, "HOTA": 1, "switches": 0})


def test_two_that_change_places_are_two_switches_by_hand() -> None:
    """Two objects in ten frames, which have each other's identities in the last four: 6 of 10 boxes are right."""
    frames = np.repeat(np.arange(1, 11), 2)
    rows = np.column_stack([frames, np.tile([1, 2], 10), np.tile([[0, 0, 9, 9], [50, 0, 59, 9]], (10, 1))])
    changed = rows.copy().astype(float)
    changed[frames > 6, 1] = 3 - changed[frames > 6, 1]
    found = metrics(rows.astype(float), changed)
    assert found["switches"] == 2
    assert (found["MOTA"], found["IDF1"]) == pytest.approx((1 - 2 / 20, 0.6))


def test_crossings_gaps_entries_and_false_detections(tmp_path: Path) -> None:
    for name in SCENES:
        found = metrics(truth(SCENES[name]), tracks_of(name, tmp_path / "t.mot.txt"))
        assert found["MOTA"] > 0.95
        assert found["IDF1"] > 0.97
        assert found["switches"] == 0


def test_a_tracker_that_does_not_predict_is_worse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clip is hard enough to tell."""
    whole = metrics(truth(SCENES[CROWD]), tracks_of(CROWD, tmp_path / "t.mot.txt"))
    monkeypatch.setattr("fcos_cli.predict.tracking.motion.Motion.predict", lambda self, steps, *, keep_height: None)
    still = metrics(truth(SCENES[CROWD]), tracks_of(CROWD, tmp_path / "t.mot.txt"))
    assert still["IDF1"] < whole["IDF1"] - 0.02
    assert still["switches"] > whole["switches"]
