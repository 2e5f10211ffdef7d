"""`fcos predict --track` against ByteTrack of roboflow's `trackers`, on the same detections of synthetic clips.

    pip install trackeval trackers
    python -m tests.benchmarks.tracking

Both get the same thresholds; everything else is the default of each. TrackEval computes the metrics. The clips are
those of `tests/predict/tracking/measured.py`: no pictures, only boxes with known identities.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from tests.predict.tracking.measured import RATE, SCENES, Rows, Scene, metrics, read_tracks, save_tracks, truth
from tests.predict.tracking.scenes import THRESHOLDS, frames_of


def ours(scene: Scene) -> Rows:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tracks.mot.txt")
        save_tracks(scene, file)
        return read_tracks(file)


def theirs(scene: Scene) -> Rows:
    import supervision
    from trackers import ByteTrackTracker

    limit = float(THRESHOLDS[0])
    tracker = ByteTrackTracker(frame_rate=RATE, track_activation_threshold=limit, high_conf_det_threshold=limit)
    rows = []
    for number, found, _ in frames_of(scene.actors, jitter=scene.jitter):
        boxes = supervision.Detections(xyxy=found.boxes, confidence=found.scores, class_id=found.classes)
        result = tracker.update(boxes)
        pairs = zip(result.tracker_id.tolist(), result.xyxy.tolist(), strict=True)
        rows += [(number + 1, identity, *box) for identity, box in pairs if identity >= 0]
    return np.array(rows, np.float64)


def main() -> None:
    print(f"{'clip':26}{'tracker':12}{'MOTA':>7}{'IDF1':>7}{'HOTA':>7}{'switches':>10}{'ms/frame':>10}")
    for name, scene in SCENES.items():
        frames = max(actor.frames.stop for actor in scene.actors)
        for tracker, tracks in (("fcos", ours), ("trackers", theirs)):
            start = time.perf_counter()
            rows = tracks(scene)
            ms = 1000 * (time.perf_counter() - start) / frames
            found = metrics(truth(scene), rows)
            numbers = "".join(f"{found[key]:7.3f}" for key in ("MOTA", "IDF1", "HOTA"))
            print(f"{name:26}{tracker:12}{numbers}{found['switches']:10}{ms:10.2f}", flush=True)


if __name__ == "__main__":
    main()
