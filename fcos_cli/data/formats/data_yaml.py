"""The values of a YOLO data.yaml: text and lists of text, whatever else YAML allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fcos_cli.data.formats.contents import decode, read_bytes
from fcos_cli.errors import DataError

MAX_BYTES = 1_000_000
"""Largest data.yaml that is read, with 20,000 names. PyYAML would take minutes for a file of many megabytes."""

UNSET: tuple[object, ...] = (None, "", "~", "null", [])
"""Values that stand for a missing one."""


def read_yaml(file: Path, *, paths: tuple[str, ...]) -> dict[str, Any]:
    """Return the table. `path` and `nc` are text; `names` a list of text, or a table of text by text; each of `paths`
    text or a list of text, also if the file writes `Train`; any of these may be missing, or None. Tags are ignored, so
    that nothing in the file is run.

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
    text = decode(raw, file, problem="the file is not valid YAML, since it is not UTF-8")
    try:
        # BaseLoader keeps every scalar as a string, so classes named `no` or `1e3` stay as written
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
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


def class_names(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Return index → name from the table of `read_yaml`, where `names` is a list or a mapping. Raises DataError."""
    value = content.get("names")
    pairs = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    try:
        names = {int(index): name for index, name in pairs}
        if not all(-(2**63) <= index < 2**63 for index in names):
            raise ValueError("an id has at most 64 bits")
    except ValueError as error:
        raise DataError("`names` has a key that is not a number", where=file, remedy="write `0: name`") from error
    count = content.get("nc")
    problem = (
        "the file declares no classes"
        if not names
        else f"`nc` says {count:.20} classes, but `names` lists {len(names)}"
        if count not in UNSET and count != str(len(names))
        else "`names` has a duplicate name"
        if len(set(names.values())) < len(names)
        else None
    )
    if problem:
        raise DataError(problem, where=f"{file}: names", remedy="list every class once under `names`")
    return dict(sorted(names.items()))
