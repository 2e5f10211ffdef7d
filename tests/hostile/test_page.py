"""The counts in docs/robustness.md are those of the tables, and `make fuzz` does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.hostile.test_annotations import ANNOTATIONS
from tests.hostile.test_images import IMAGES
from tests.hostile.test_models import MODELS
from tests.hostile.test_settings import FLAGS, SETTINGS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/robustness.md").read_text(encoding="utf-8")
TABLES = {"annotations": [ANNOTATIONS], "images": [IMAGES], "models": [MODELS], "settings": [SETTINGS, FLAGS]}


@pytest.mark.parametrize("kind", TABLES)
def test_counts(kind: str) -> None:
    assert f"| {kind} | {sum(map(len, TABLES[kind]))} |" in PAGE


def test_every_kind_is_listed() -> None:
    assert re.findall(r"^\| (\w+) \| \d+ \|", PAGE, re.MULTILINE) == list(TABLES)


@pytest.mark.parametrize("kind", ["annotations", "images", "models", "settings"])
def test_no_name_is_used_twice(kind: str) -> None:
    names = [getattr(case, "name", case) for table in TABLES[kind] for case in table]
    assert len(set(names)) == len(names)


def test_the_fuzzer() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "COUNT ?= 20000" in makefile
    assert "SEED ?= 0" in makefile
    assert "20,000" in PAGE
