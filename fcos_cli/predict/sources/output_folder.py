"""The output folder among the sources: what an earlier run wrote there is not a source, unless the user names it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fcos_cli.predict.mark import was_written_by_us


class OutputFolder:
    """The folder of the outputs. writes: whether this run puts pictures there."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        self._resolved = lru_cache(maxsize=1000)(Path.resolve)  # files of a folder follow each other
        self.path, self.writes = path.resolve(), writes

    def is_passed_over(self, subfolder: Path) -> bool:
        """Whether a folder inside one that the user named is not searched."""
        return self.writes and subfolder.resolve() == self.path

    def hides(self, file: Path, *, named: Path) -> bool:
        """Whether a file that was found in `named` is not a source.

        named: the folder that the user named, itself or at the beginning of a pattern. If it contains the output
        folder, all that is there is hidden while this run writes, else what carries the mark; if it is the output
        folder, what carries the mark; if it lies inside, nothing: the user wants what is there.
        """
        if not self._resolved(file.parent).is_relative_to(self.path):
            return False
        top = self._resolved(named)
        if not self.path.is_relative_to(top):
            return False
        return (self.writes and top != self.path) or was_written_by_us(file)
