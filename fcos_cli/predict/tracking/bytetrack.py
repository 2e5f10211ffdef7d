"""Identities of objects through a clip: ByteTrack (Zhang et al., ECCV 2022, arXiv:2110.06864), algorithm 1.

Boxes above the threshold are matched with where the known objects should be by now. Those that remain are matched with
boxes below it, which are often objects that are half hidden. Only boxes above the threshold begin a new identity.

Notable choices:
- Own code, in numpy. Of the libraries, trackers needs OpenCV, SciPy and matplotlib (0.6 GB), and norfair has no
  second stage; both let the class of an object change.
- An object keeps its class: only boxes of the same class are matched.
- Time is that of the frames, not their number, so left-out frames and variable rates cause no jumps.
- The threshold is the one for reporting, for each class its own, and no part of it is tuned to a data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fcos_cli.data.boxes import box_iou
from fcos_cli.predict.tracking.assign import assign
from fcos_cli.predict.tracking.motion import RATE, Motion
from fcos_cli.runtime.results import Detections

LOW_SCORE = 0.1
"""Boxes below this are not used at all."""
MIN_IOU, MIN_IOU_LOW, MIN_IOU_NEW = 0.2, 0.5, 0.3
"""Smallest IoU of a match: with boxes above the threshold, below it, and of an object seen once. From the authors."""
MAX_SECONDS, MIN_FRAMES = 1.0, 5
"""An object that is not seen is forgotten after both: this time, and this number of frames."""


@dataclass(eq=False)
class Track:
    """An object. id: 0 until it was seen twice. missed: frames since it was seen."""

    motion: Motion
    class_index: int
    last_seen: Fraction
    id: int = 0
    missed: int = 0


class Tracker:
    """The objects of one clip. thresholds: float32 [C], score of each class from which a box begins an identity."""

    def __init__(self, thresholds: npt.NDArray[np.float32]) -> None:
        self.thresholds = thresholds
        self.tracks: list[Track] = []
        self._time: Fraction | None = None
        self._last_id = 0

    def update(self, detections: Detections, time: Fraction) -> npt.NDArray[np.int64]:
        """Return the identities of the detections of the next frame: int64 [N], 0 for none (yet).

        detections: all above LOW_SCORE. time: of the frame in seconds, later than that of the one before.
        """
        first_frame = self._time is None
        steps = 0.0 if self._time is None else float(time - self._time) * RATE
        self._time = time
        for track in self.tracks:
            track.motion.predict(steps, keep_height=track.missed > 0)
        found: dict[int, Track] = {}
        high = detections.scores >= self.thresholds[detections.classes]
        known = [track for track in self.tracks if track.id]
        self._match(known, detections, np.flatnonzero(high), found, min_iou=MIN_IOU)
        visible = [track for track in known if not track.missed]  # a hidden object does not come back half visible
        self._match(visible, detections, np.flatnonzero(~high), found, min_iou=MIN_IOU_LOW)
        new = [track for track in self.tracks if not track.id]
        self._match(new, detections, np.flatnonzero(high), found, min_iou=MIN_IOU_NEW)
        self._see(found, detections, time)
        self._begin(detections, high, found, time, at_once=first_frame)
        ids = np.zeros(len(detections), np.int64)
        ids[list(found)] = [track.id for track in found.values()]
        return ids

    def _match(
        self,
        tracks: list[Track],
        detections: Detections,
        candidates: npt.NDArray[np.int64],
        found: dict[int, Track],
        *,
        min_iou: float,
    ) -> None:
        """Add matches of the tracks that are not in `found` with candidates that are not in it either."""
        taken = set(map(id, found.values()))
        tracks = [track for track in tracks if id(track) not in taken]
        free = np.array([index for index in candidates.tolist() if index not in found], np.int64)
        if not tracks or not len(free):
            return
        iou = box_iou(np.array([track.motion.box for track in tracks]), detections.boxes[free].astype(np.float64))
        same = np.array([track.class_index for track in tracks])[:, None] == detections.classes[free]
        for row, column in assign(np.where(same, iou - min_iou, 0)):
            found[int(free[column])] = tracks[row]

    def _see(self, found: dict[int, Track], detections: Detections, time: Fraction) -> None:
        """Update the tracks that were found, and drop those not found for too long."""
        for track in self.tracks:
            track.missed += 1
        for index, track in sorted(found.items()):
            track.motion.update(detections.boxes[index])
            track.missed, track.last_seen = 0, time
            track.id = track.id or self._next_id()
        self.tracks = [track for track in self.tracks if not track.missed or (track.id and not _is_lost(track, time))]

    def _begin(
        self,
        detections: Detections,
        high: npt.NDArray[np.bool_],
        found: dict[int, Track],
        time: Fraction,
        *,
        at_once: bool,
    ) -> None:
        """Add a track for each box above the threshold that matches none of the known objects."""
        for index in np.flatnonzero(high).tolist():
            if index not in found:
                track = Track(Motion(detections.boxes[index]), int(detections.classes[index]), time)
                track.id = self._next_id() if at_once else 0
                self.tracks.append(track)
                found[index] = track

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id


def _is_lost(track: Track, time: Fraction) -> bool:
    return track.missed > MIN_FRAMES and time - track.last_seen > MAX_SECONDS
