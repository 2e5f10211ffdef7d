"""Writes docs/settings.md from the descriptions in the code: python -m tests.settings_page"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from fcos_cli.config import AUTOMATIC, Config
from fcos_cli.model.conventions import Conventions

PAGE = Path(__file__).parents[1] / "docs/settings.md"

INTRODUCTION = """\
# Settings

All settings of `fcos train`. `fcos train DATA --dry-run` prints the values that a run would have, and where each comes
from. Set them by `--set train.lr=0.002`, by an environment variable (`FCOS_TRAIN__LR=0.002`), or in a file:

```toml
# fcos train data/ --config mine.toml
[train]
epochs = 60
batch = 16

[augment]
flip = 0.0
```

Flags have precedence over `--set`, `--set` over the environment, and the environment over the file. Settings whose
default is *automatic* are [chosen from your data](training.md#automatic-settings); `auto` sets them back to that.
"""

TITLES = {"model": "Network", "data": "Data", "augment": "Augmentation", "train": "Training"}

CONVENTIONS = """\
## Conventions

The switches in which FCOS implementations differ, such as `--set model.conventions.score=product`. `fcos convert` sets
them as the implementation has them.
"""


class Setting(NamedTuple):
    key: str
    default: str
    meaning: str


def settings(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        key, kind = f"{prefix}{name}", field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings(kind, f"{key}.")
        elif kind is not Conventions:
            default = "*automatic*" if key in AUTOMATIC else _code(field.default)
            yield Setting(key, default, field.description or "")


def conventions() -> Iterator[Setting]:
    """From the docstring, which has a paragraph `name: meaning` for each."""
    text = re.sub(r"\n {8,}", " ", Conventions.__doc__ or "")
    meanings = dict(re.findall(r"^ {4}(\w+): (.+)$", text, flags=re.MULTILINE))
    for name, default in vars(Conventions()).items():
        yield Setting(name, _code(default), meanings.get(name, "").rstrip("."))


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def _table(rows: Iterator[Setting]) -> str:
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{row.key}` | {row.default} | {row.meaning} |" for row in rows)])


def page() -> str:
    sections = [INTRODUCTION]
    for section, title in TITLES.items():
        rows = (row for row in settings() if row.key.startswith(f"{section}."))
        sections.append(f"## {title}\n\n{_table(rows)}\n")
    return "\n".join([*sections, f"{CONVENTIONS}\n{_table(conventions())}\n"])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
