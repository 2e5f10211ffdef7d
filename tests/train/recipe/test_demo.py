"""The data of the demo, when several processes start it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcos_cli.errors import FcosError
from fcos_cli.train.recipe.demo import demo_data


def test_a_process_that_waits_for_the_images_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in {**facts, "FCOS_WAIT_MINUTES": "0.001"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FcosError, match=r"0\.001 minutes") as caught:
        demo_data(tmp_path / "demo")
    assert caught.value.where == str(tmp_path / "demo")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "val.json").touch()
    assert demo_data(tmp_path / "demo") == tmp_path / "demo"
