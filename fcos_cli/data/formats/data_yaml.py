"""The values of a YOLO data.yaml: text and lists of text, whatever else YAML allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fcos_cli.data.formats.contents import read_bytes
from fcos_cli.errors import DataError

MAX_BYTES = 1_000_000
"""Size of a data.yaml: that of one with 20,000 names. PyYAML would take minutes for a file of many megabytes."""


def read_yaml(file: Path, *, paths: tuple[str, ...]) -> dict[str, Any]:
    """Return the table. `path` and `nc` are text; `names` a list of text, or a table of text by text; each of `paths`
    text or a list of text, in the file also as `Train`; all of these may be missing, or None. Tags are ignored, so that
    nothing in the file is run.

    Raises DataError. References (`*a`) are followed in these places only as far as text: a small file of references to
    references can stand for millions of values.
    """
    raw = read_bytes(file)
    if len(raw) > MAX_BYTES:
        raise DataError(
            f"the file is larger than {MAX_BYTES // 1_000_000} MB, too large for the description of a data set",
            where=file,
            remedy="list images in a .txt file, and name it in `train:`",
        )
    try:
        # BaseLoader keeps every scalar as a string, so classes named `no` or `1e3` stay as written
        content = yaml.load(raw.decode("utf-8-sig"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise DataError(
            f"the file is not valid YAML ({' '.join(str(error).split())[:160]})",
            where=f"{file}:{mark.line + 1}" if mark else file,
            remedy="correct this line",
        ) from error
    if not isinstance(content, dict):
        raise DataError("the file is not a YOLO data set", where=file, remedy="it needs `names`, `train` and `val`")
    content = {key.lower() if key.lower() in paths else key: value for key, value in content.items()}
    for key in ("path", "nc", "names", *paths):
        value = content.get(key)
        listed = list(value.values()) if isinstance(value, dict) and key == "names" else value
        if key not in ("path", "nc") and isinstance(listed, list):
            fits = all(isinstance(entry, str) for entry in listed)
        else:
            fits = value is None or isinstance(value, str)
        if not fits:
            kind = "text" if key in ("path", "nc") else "text or a list of text"
            raise DataError(f"`{key}` must be {kind}", where=f"{file}: {key}", remedy="correct this entry")
    return content
