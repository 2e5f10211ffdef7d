"""The folder of a job: what is refused, what goes on, and what is left behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fcos_cli.errors import DataError, FcosError, UsageError
from fcos_cli.predict.cluster.job import JobFolder
from fcos_cli.predict.cluster.listing import Entry, Listed
from fcos_cli.predict.cluster.places import Place, locate
from fcos_cli.predict.cluster.schema import Counts, to_parquet

pytest.importorskip("pyarrow")

SETTINGS: dict[str, Any] = {"model": "abc", "score": 0.25, "sources": ["in"]}


@pytest.fixture(params=["", "file://"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> JobFolder:
    return JobFolder(locate(f"{request.param}{tmp_path}/found.parquet"))


def begin(job: JobFolder, count: int = 40) -> Listed:
    return job.begin(SETTINGS, (Entry(f"{number}.png", 0) for number in range(count)), base="/here")


def test_a_job_goes_on_where_it_was(job: JobFolder) -> None:
    job.check()
    assert job.open(SETTINGS, resume=True) is None  # the same command can be repeated from the start
    listed = begin(job)
    assert listed == Listed(3, 40, "/here")
    job.part(2).write(to_parquet([], Counts(8, 2, 1)))
    job.part(0).write(to_parquet([], Counts(16, 1)))
    job.check()
    assert job.open(SETTINGS, resume=True) == listed
    assert job.finished() == {0, 2}
    assert job.counts([0, 2]) == Counts(24, 3, 1)


def test_another_job_is_refused_with_what_is_different(job: JobFolder) -> None:
    begin(job)
    with pytest.raises(UsageError, match=r"options: model, tile\n"):
        job.open({**SETTINGS, "model": "def", "tile": [640, 0.2]}, resume=True)
    with pytest.raises(UsageError, match="has the results of a job") as error:
        job.open(SETTINGS, resume=False)
    assert "--resume" in str(error.value.remedy)


def test_a_folder_that_holds_something_else_is_refused(job: JobFolder) -> None:
    begin(job)
    folder = Path(job.place.path)
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"something that is not part of such results: letter\.txt"):
        job.check()
    (folder / "letter.txt").unlink()
    (folder / "part-00000.parquet").mkdir()
    with pytest.raises(UsageError, match="not part of such results"):
        job.check()


def test_parts_without_their_job_are_refused(job: JobFolder) -> None:
    job.part(0).system.create_dir(job.place.path)
    job.part(0).write(to_parquet([], Counts()))
    with pytest.raises(UsageError, match="no job that could be continued"):
        job.open(SETTINGS, resume=True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": 1, "partitions": 1, "pictures": 1, "base": ""}'])
def test_a_damaged_job_is_an_error_that_names_the_file(job: JobFolder, text: str) -> None:
    begin(job)
    (Path(job.place.path) / "_job/job.json").write_text(text)
    with pytest.raises(UsageError, match="not a job file") as error:
        job.open(SETTINGS, resume=True)
    assert str(error.value.where).endswith("_job/job.json")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "found.parquet").write_text("")
    with pytest.raises(UsageError, match=r"is not a folder|not a folder"):
        JobFolder(locate(str(tmp_path / "found.parquet"))).check()


def test_a_list_that_fails_leaves_nothing(job: JobFolder) -> None:
    def entries() -> Any:
        yield Entry("a.png", 0)
        raise DataError("the bucket is gone")

    with pytest.raises(DataError, match="bucket"):
        job.begin(SETTINGS, entries(), base="/")
    assert not Path(job.place.path).exists()


@pytest.mark.parametrize("refused", ["create_dir", "open_output_stream"])
def test_a_bucket_that_cannot_be_written_is_one_error(refused: str) -> None:
    def refuse(_path: str) -> None:
        raise OSError("AWS Error ACCESS_DENIED during PutObject operation")

    calls = {"create_dir": lambda _path: None, "delete_dir": lambda _path: None, refused: refuse}
    store: Any = SimpleNamespace(type_name="s3", **calls)
    with pytest.raises(FcosError, match=r"writing failed \(AWS Error ACCESS_DENIED") as caught:
        begin(JobFolder(Place("s3://bucket/found", store, "bucket/found", "s3")))
    assert str(caught.value.where).startswith("s3://bucket/found")


def test_what_killed_workers_left_is_removed_and_results_stay(job: JobFolder) -> None:
    begin(job)
    job.part(1).write(to_parquet([], Counts()))
    (Path(job.place.path) / ".0123456789abcdef.tmp").write_text("half")
    job.check()
    job.tidy()
    assert sorted(path.name for path in Path(job.place.path).iterdir()) == ["_job", "part-00001.parquet"]
