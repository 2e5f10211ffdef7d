"""The filter of a box, compared with the usual one of eight numbers and matrices."""

import numpy as np
import pytest

from fcos_cli.predict.tracking.motion import Motion


class TextbookFilter:
    """The Kalman filter of DeepSORT and ByteTrack as in their papers: matrices of all eight numbers."""

    def __init__(self, z: np.ndarray) -> None:
        h = z[3]
        self.mean = np.concatenate([z, np.zeros(4)])
        deviations = [h / 10, h / 10, 1e-2, h / 10, h / 16, h / 16, 1e-5, h / 16]
        self.covariance = np.diag(np.square(deviations))

    def predict(self, steps: float) -> None:
        move, h = np.eye(8), self.mean[3]
        move[:4, 4:] = steps * np.eye(4)
        noise = np.diag(np.square([h / 20, h / 20, 1e-2, h / 20, h / 160, h / 160, 1e-5, h / 160]))
        self.mean, self.covariance = move @ self.mean, move @ self.covariance @ move.T + steps * noise

    def update(self, z: np.ndarray) -> None:
        observe, h = np.eye(4, 8), self.mean[3]
        noise = np.diag(np.square([h / 20, h / 20, 1e-1, h / 20]))
        total = observe @ self.covariance @ observe.T + noise
        gain = self.covariance @ observe.T @ np.linalg.inv(total)
        self.mean = self.mean + gain @ (z - observe @ self.mean)
        self.covariance = self.covariance - gain @ total @ gain.T


def box_of(x: float, y: float, aspect: float, height: float) -> np.ndarray:
    return np.array([x - aspect * height / 2, y - height / 2, x + aspect * height / 2, y + height / 2], np.float32)


def test_it_is_the_filter_of_the_papers():
    rng = np.random.default_rng(0)
    state = np.array([100.0, 80.0, 0.5, 40.0])
    motion, textbook = Motion(box_of(*state)), TextbookFilter(state)
    for steps in (1, 1, 2.5, 1, 0.4, 6):
        motion.predict(steps, keep_height=False)
        textbook.predict(steps)
        np.testing.assert_allclose(motion.box, box_of(*textbook.mean[:4]), rtol=1e-4)
        state = state + steps * np.array([3.0, -1.0, 0.0, 0.5]) + rng.normal(0, [1, 1, 0.01, 1])
        motion.update(box_of(*state))
        textbook.update(state)
        np.testing.assert_allclose(motion.box, box_of(*textbook.mean[:4]), rtol=1e-4)
    np.testing.assert_allclose(motion.velocity, textbook.mean[4:], rtol=1e-3, atol=1e-5)


def test_an_object_that_is_not_seen_goes_on_at_its_height():
    motion = Motion(box_of(100, 100, 1, 20))
    for n in range(1, 30):
        motion.predict(1, keep_height=False)
        motion.update(box_of(100 + 4 * n, 100, 1, 20 + n / 2))
    height = motion.position[3]
    for _ in range(10):
        motion.predict(1, keep_height=True)
    assert motion.position[0] == pytest.approx(100 + 4 * 39, abs=2)
    assert motion.position[3] == height


def test_a_box_without_height_is_no_division_by_zero():
    motion = Motion(np.array([5, 5, 9, 5], np.float32))
    motion.predict(1, keep_height=False)
    motion.update(np.array([5, 5, 9, 5], np.float32))
    assert np.isfinite(motion.box).all()
