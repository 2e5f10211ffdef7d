"""How a job ends. No cluster is started here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from fcos_cli.predict.cluster import run
from fcos_cli.predict.cluster.job import JobFolder
from fcos_cli.predict.cluster.places import locate
from fcos_cli.predict.cluster.sources import check_sources, list_sources
from tests.predict.cluster.made import task_of, write_pictures

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("address", [None, "auto"])
def test_after_ctrl_c_only_what_no_worker_can_still_write_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(Path("in"), 40)
    out, roots = locate("out"), check_sources(["in"])
    job, temporary = JobFolder(out), Path("out/.0123456789abcdef.tmp")
    listed = job.begin({}, list_sources(["in"], roots, column=None, out=out), base=str(tmp_path))

    def interrupt(*_arguments: Any, **_options: Any) -> None:
        job.part(0).write(b"")
        temporary.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run._finish(job, listed, task_of(out, roots, tmp_path), cast(Any, None), address=address)
    assert temporary.exists() is (address is not None)
