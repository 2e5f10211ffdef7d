"""Where a box will be: a Kalman filter with constant velocity, as in ByteTrack and, before it, DeepSORT."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

RATE = 30.0
"""Steps per second: the noise below is that of the authors, for videos of about this rate."""
POSITION, VELOCITY = 1 / 20, 1 / 160
"""Standard deviations of position and velocity, as parts of the height of the box."""


class Motion:
    """The state of one box: centre x, centre y, aspect ratio and height, each with its velocity per step.

    The four do not depend on each other, so each has a filter of two numbers instead of one filter of eight for all.
    """

    def __init__(self, box: npt.NDArray[np.float32]) -> None:
        """box: float32 [4], xyxy in pixels."""
        self.position, self.velocity = _measured(box), np.zeros(4)
        height = self.position[3]
        self._var_position = _square([2 * POSITION * height] * 2, 1e-2, 2 * POSITION * height)
        self._var_velocity = _square([10 * VELOCITY * height] * 2, 1e-5, 10 * VELOCITY * height)
        self._covariance = np.zeros(4)

    @property
    def box(self) -> Vector:
        """Float64 [4], xyxy in pixels."""
        x, y, aspect, height = self.position
        half = np.array([max(aspect, 0) * height, height]) / 2
        return np.array([x - half[0], y - half[1], x + half[0], y + half[1]])

    def predict(self, steps: float, *, keep_height: bool) -> None:
        """Move on by `steps` of 1 / RATE seconds. keep_height: for an object that is not seen."""
        if keep_height:
            self.velocity[3] = 0
        height = self.position[3]
        self.position = self.position + steps * self.velocity
        self._var_position += steps * (2 * self._covariance + steps * self._var_velocity)
        self._covariance = self._covariance + steps * self._var_velocity
        self._var_position += steps * _square([POSITION * height] * 2, 1e-2, POSITION * height)
        self._var_velocity += steps * _square([VELOCITY * height] * 2, 1e-5, VELOCITY * height)

    def update(self, box: npt.NDArray[np.float32]) -> None:
        """Correct the state with a detected box, float32 [4]."""
        height = self.position[3]
        total = self._var_position + _square([POSITION * height] * 2, 1e-1, POSITION * height)
        error = _measured(box) - self.position
        gain, gain_of_velocity = self._var_position / total, self._covariance / total
        self.position = self.position + gain * error
        self.velocity = self.velocity + gain_of_velocity * error
        self._var_velocity -= gain_of_velocity * self._covariance
        self._var_position *= 1 - gain
        self._covariance = self._covariance * (1 - gain)


def _measured(box: npt.NDArray[np.float32]) -> Vector:
    x1, y1, x2, y2 = box.astype(np.float64)
    height = max(y2 - y1, 1e-3)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / height, height])


def _square(centre: list[float], aspect: float, height: float) -> Vector:
    """Variances, from standard deviations."""
    return np.array([*centre, aspect, height]) ** 2
