"""Clips with known identities, and the metrics of TrackEval for tracks of them in MOTChallenge form.

TrackEval (MIT licence) is the reference implementation of MOTA, IDF1 and HOTA: `pip install trackeval`.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fcos_cli.data.boxes import box_iou
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.pipeline import Prediction
from fcos_cli.predict.sources.frames import Clip, Moment
from fcos_cli.predict.tracking.track import track
from fcos_cli.predict.writers import open_writer
from tests.predict.tracking.scenes import THRESHOLDS, Actor, frames_of

RATE = 30
CLASSES = ClassTable(("a", "b"), (1, 2))

Rows = npt.NDArray[np.float64]
"""[N, 6]: number of the frame from 1, identity, x1, y1, x2, y2."""


class Scene(NamedTuple):
    """The first `real` actors are objects, the others false detections. jitter: standard deviation of boxes in px."""

    actors: list[Actor]
    real: int
    jitter: float


def walkers(count: int, *, frames: int, jitter: float, misses: float, clutter: int, seed: int) -> Scene:
    """Objects that enter, sway, cross each other and are hidden, half hidden or missed, among false detections.

    misses: share of single frames without detection. clutter: number of false detections in the clip.
    """
    rng = np.random.default_rng(seed)
    actors = []
    for _ in range(count):
        begin, end = int(rng.integers(0, frames // 3)), int(rng.integers(2 * frames // 3, frames))
        gap, faint = int(rng.integers(begin + 5, end - 20)), int(rng.integers(begin + 5, end - 20))
        hidden = {*range(gap, gap + int(rng.integers(1, 12)))}
        hidden |= {n for n in range(begin + 2, end) if rng.random() < misses}
        x, y, dx, dy = *rng.uniform((100, 100), (1180, 860)), *rng.uniform(-4, 4, 2)
        phase, sway = rng.uniform(0, 6), rng.uniform(0, 25)

        def place(n: int, at: Any = (x, y, dx, dy, phase, sway)) -> tuple[float, float]:
            x, y, dx, dy, phase, sway = at
            return x + dx * n + sway * np.sin(n / 12 + phase), y + dy * n

        size = (float(rng.uniform(30, 60)), float(rng.uniform(60, 120)))
        fading = frozenset(range(faint, faint + int(rng.integers(1, 10))))
        actors.append(Actor(place, range(begin, end), size, hidden=frozenset(hidden), faint=fading))
    for _ in range(clutter):
        spot, number = tuple(rng.uniform((0, 0), (1280, 960))), int(rng.integers(0, frames))
        actors.append(Actor(lambda n, spot=spot: spot, range(number, number + 1), (40, 80)))
    return Scene(actors, count, jitter)


SCENES = {
    "10 objects, clean": walkers(10, frames=150, jitter=1, misses=0, clutter=0, seed=1),
    "20 objects, some missed": walkers(20, frames=150, jitter=2, misses=0.05, clutter=30, seed=2),
    "50 objects, a crowd": walkers(50, frames=150, jitter=3, misses=0.1, clutter=150, seed=3),
}


def truth(scene: Scene) -> Rows:
    """The objects in every frame in which they can be detected."""
    rows = []
    for identity, actor in enumerate(scene.actors[: scene.real], start=1):
        for number in sorted(set(actor.frames) - actor.hidden):
            (x, y), (width, height) = actor.place(number), actor.size
            rows.append((number + 1, identity, x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return np.array(rows, np.float64).reshape(-1, 6)


def save_tracks(scene: Scene, file: Path) -> None:
    """Write what `fcos predict --track --save FILE.mot.txt` writes if the detector finds the actors."""
    clip = Clip(Path("clip.mp4"), Fraction(RATE))
    frames = (
        Prediction(clip.source, 1280, 960, found, None, Moment(clip, number, Fraction(number, RATE)))
        for number, found, _ in frames_of(scene.actors, jitter=scene.jitter)
    )
    with open_writer(file, classes=CLASSES, model="m", format="mot", tracked=True) as writer:
        for result in track(frames, thresholds=THRESHOLDS):
            writer.write(result)


def read_tracks(file: Path) -> Rows:
    """Read a file of MOTChallenge: frame, id, left, top, width, height, and more."""
    rows = np.loadtxt(file, delimiter=",", ndmin=2)[:, :6]
    rows[:, 4:] += rows[:, 2:4]
    return rows


def metrics(true: Rows, tracks: Rows) -> dict[str, float]:
    """MOTA, IDF1, HOTA (mean over its thresholds) and the number of identity switches, by TrackEval."""
    from trackeval.metrics import CLEAR, HOTA, Identity

    numbers = range(1, int(max(true[:, 0].max(), tracks[:, 0].max())) + 1)
    frames = [[rows[rows[:, 0] == number] for number in numbers] for rows in (true, tracks)]
    ids = [[_indices(rows)[rows[:, 0] == number] for number in numbers] for rows in (true, tracks)]
    data = {
        "num_timesteps": len(numbers),
        "num_gt_ids": len(np.unique(true[:, 1])),
        "num_tracker_ids": len(np.unique(tracks[:, 1])),
        "num_gt_dets": len(true),
        "num_tracker_dets": len(tracks),
        "gt_ids": ids[0],
        "tracker_ids": ids[1],
        "similarity_scores": [box_iou(a[:, 2:], b[:, 2:]) for a, b in zip(*frames, strict=True)],
    }
    quiet = {"PRINT_CONFIG": False}
    clear, identity = CLEAR(quiet).eval_sequence(data), Identity(quiet).eval_sequence(data)
    hota = HOTA().eval_sequence(data)
    return {
        "MOTA": float(clear["MOTA"]),
        "IDF1": float(identity["IDF1"]),
        "HOTA": float(np.mean(hota["HOTA"])),
        "switches": int(clear["IDSW"]),
    }


def _indices(rows: Rows) -> npt.NDArray[np.int64]:
    """The identities, numbered from 0 without gaps."""
    return np.unique(rows[:, 1], return_inverse=True)[1]
