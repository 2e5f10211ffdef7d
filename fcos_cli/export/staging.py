"""Where an export is written until it is complete, so that one that fails or is interrupted leaves the earlier file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fcos_cli.errors import FcosError
from fcos_cli.export.compare import remove_report
from fcos_cli.runtime.rewrite import second_file


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A path of the same name in a new folder beside `path`, to write a model and its report to.

    If the block succeeds, all files in that folder replace those beside `path`. Errors name the final place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fcos-") as folder:
        new = Path(folder, path.name)
        try:
            yield new
        except FcosError as error:
            error.where = error.where and error.where.replace(str(new.parent), str(path.parent))
            raise
        remove_report(path)
        if second_file(path) is not None:
            path.unlink(missing_ok=True)  # it must never be found with the other file of the new one
        for file in sorted(new.parent.iterdir(), key=lambda file: file == new):  # the model file itself last
            file.replace(path.with_name(file.name))
