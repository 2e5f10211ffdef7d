"""The model of a job, as it travels: read once where the job begins, opened by every worker."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import FcosError, ModelError
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.open import open_detector


@dataclass(frozen=True)
class ModelOptions:
    """How the model is opened, as in `open_detector`, and which results are reported, as in `run_predict`."""

    score: float | None = None
    iou: float | None = None
    max_detections: int | None = None
    device: str | None = None
    backend: str | None = None
    precision: str | None = None
    chosen: tuple[int, ...] | None = None
    tiling: Tiling | None = None
    batch: int = 1

    def open(self, model: str | Path, *, threads: int | None = None) -> Detector:
        """Open a model with these options. Raises what `open_detector` raises."""
        return open_detector(
            model,
            score=self.score,
            iou=self.iou,
            max_detections=self.max_detections,
            device=self.device or "auto",
            backend=self.backend,
            precision=self.precision,
            threads=threads,
        )


@dataclass(frozen=True)
class ModelFiles:
    """A model as it travels to the workers. files: contents by name; `name` is the one to open. title: what the user
    called it.
    """

    name: str
    title: str
    files: dict[str, bytes] = field(repr=False)

    @classmethod
    def read(cls, path: Path, *, title: str) -> ModelFiles:
        """Read a model file and those that belong to it. Raises ModelError."""
        beside = (path.with_suffix(".bin"), path.with_name(f"{path.name}.json"), path.with_name(f"{path.name}.data"))
        try:
            files = {file.name: file.read_bytes() for file in (path, *beside) if file.is_file()}
        except OSError as error:
            raise ModelError(f"the model cannot be read ({error.strerror})", where=path) from error
        return cls(path.name, title, files)

    @property
    def digest(self) -> str:
        """SHA-256 of all contents."""
        total = hashlib.sha256()
        for name in sorted(self.files):
            total.update(hashlib.sha256(self.files[name]).digest())
        return total.hexdigest()

    def open(self, options: ModelOptions, *, threads: int | None = None) -> Detector:
        """Open the model from a temporary folder. Raises what `open_detector` raises."""
        with tempfile.TemporaryDirectory(prefix="fcos-model-") as folder:
            for name, content in self.files.items():
                Path(folder, name).write_bytes(content)
            try:
                return options.open(Path(folder, self.name), threads=threads)
            except FcosError as error:
                error.where = error.where and error.where.replace(str(Path(folder, self.name)), self.title)
                raise
