"""A worker turns partitions into the rows that `fcos predict` writes without a cluster. No cluster is started here."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from fcos_cli.errors import DataError, FcosError, ModelError, UsageError
from fcos_cli.predict.cluster.job import JobFolder
from fcos_cli.predict.cluster.places import Place, StoreError, locate
from fcos_cli.predict.cluster.schema import Counts
from fcos_cli.predict.cluster.sources import check_sources, list_sources
from fcos_cli.predict.cluster.worker import MAX_ATTEMPTS, Attempts, Report
from tests.predict.cluster.made import BROKEN, job_rows, local_rows, task_of, worker_here, write_pictures
from tests.small_onnx import write_onnx

pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", 40)
    write_onnx(tmp_path / "model.onnx")
    return tmp_path


def run(source: str, monkeypatch: pytest.MonkeyPatch, **changes: object) -> list[Report]:
    """A whole job in this process."""
    out, roots = locate("out"), check_sources([source])
    job = JobFolder(out)
    listed = job.begin({}, list_sources([source], roots, column=None, out=out), base=str(Path.cwd()))
    worker = worker_here(task_of(out, roots, Path.cwd(), **changes), Path("model.onnx"), monkeypatch)
    monkeypatch.chdir("/")  # workers have another working folder
    answers = [worker({"number": number})["report"] for number in numbers(listed.partitions)]
    monkeypatch.chdir(Path(out.path).parent)
    return [Report.from_json(text) for answer in answers for text in answer]


def numbers(count: int) -> list[object]:
    import numpy as np

    return [np.arange(begin, min(begin + 2, count)) for begin in range(0, count, 2)]


def test_rows_of_a_folder_are_those_of_the_local_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = run("in", monkeypatch)
    expected = local_rows(Path("model.onnx"), "in", Path("local.jsonl"))
    assert job_rows(Path("out")) == expected
    assert sum(len(row.get("detections", ())) for row in expected) > 20
    assert sum((report.counts for report in reports), Counts()) == Counts(40, 1, 0)
    (error,) = [error for report in reports for error in report.errors]
    assert (error.where, error.exit_code) == (f"in/{BROKEN:03}.png", 3)
    assert JobFolder(locate("out")).counts([0, 1, 2]) == Counts(40, 1, 0)


def test_rows_of_an_address_are_those_of_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(f"file://{folder}/in", monkeypatch)
    expected = local_rows(Path("model.onnx"), "in", Path("local.jsonl"))
    assert [
        {**row, "source": row["source"].removeprefix(f"file://{folder}/")} for row in job_rows(Path("out"))
    ] == expected


def test_rows_of_a_parquet_file_are_those_of_its_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(Path("in").iterdir())
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 10)).save(turned, "JPEG", exif=exif)
    table = pa.table({"image": [*(file.read_bytes() for file in files), None, turned.getvalue()]})
    pq.write_table(table, "pictures.parquet", row_group_size=9)
    reports = run("pictures.parquet", monkeypatch)
    rows = {row["source"]: row for row in job_rows(Path("out"))}
    for number, row in enumerate(local_rows(Path("model.onnx"), "in", Path("local.jsonl"))):
        assert rows[f"pictures.parquet:{number}"] == {**row, "source": f"pictures.parquet:{number}"}
    assert rows["pictures.parquet:40"]["error"] == "this row holds no picture"
    assert (rows["pictures.parquet:41"]["width"], rows["pictures.parquet:41"]["height"]) == (10, 30)
    assert sum((report.counts for report in reports), Counts()) == Counts(42, 2, 0)


def test_rows_that_cannot_be_read_on_are_errors_and_none_is_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = Path("in/000.png").read_bytes()
    pq.write_table(pa.table({"image": [content] * 40}), "pictures.parquet", row_group_size=20, compression="none")
    damaged = bytearray(Path("pictures.parquet").read_bytes())
    end = damaged.rindex(content[:30])
    damaged[end - 4000 : end] = bytes(4000)
    original = pq.ParquetFile.iter_batches

    def broken(self, *arguments, **options):
        for number, batch in enumerate(original(self, *arguments, **options)):
            if number == 1:
                raise OSError("the page is damaged")
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", broken)
    run("pictures.parquet", monkeypatch)
    rows = job_rows(Path("out"))
    assert len(rows) == len({row["source"] for row in rows}) == 40
    assert {row["error"] for row in rows if "error" in row} == {"cannot read this (the page is damaged)"}
    assert 0 < sum("error" in row for row in rows) < 40


@pytest.mark.parametrize(
    ("changes", "least"), [({"score": 0.95}, 0.95), ({"chosen": (1,)}, 0), ({"max_detections": 1}, 0)]
)
def test_options_select_what_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], least: float
) -> None:
    run("in", monkeypatch, **changes)
    found = [row["detections"] for row in job_rows(Path("out")) if "detections" in row]
    assert any(found)
    assert all(each["score"] >= least for row in found for each in row)
    if "chosen" in changes:
        assert {each["class"] for row in found for each in row} == {"b"}
    if "max_detections" in changes:
        assert max(map(len, found)) == 1


def test_a_model_that_cannot_be_opened_is_a_fatal_error_with_its_name_and_exit_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("model.onnx").write_bytes(Path("model.onnx").read_bytes()[:2000])
    (first, *_) = run("in", monkeypatch)
    assert isinstance(first.fatal, ModelError)
    assert first.fatal.where == "the model"
    assert list(Path("out").glob("part-*")) == []


def test_a_store_that_stops_answering_ends_the_job_instead_of_filling_it_with_errors(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1000))
    read = Place.read

    def answers(self: Place) -> bytes:
        if next(calls) < 20:
            return read(self)
        raise StoreError("cannot read this (timeout)", where=self.name)

    monkeypatch.setattr(Place, "read", answers)
    monkeypatch.setattr("fcos_cli.predict.cluster.worker.PAUSES", (0.0, 0.0))
    reports = run(f"file://{folder}/in", monkeypatch)
    assert [report.fatal is None for report in reports] == [True, True, False]
    assert "the store returned none of 8 images: cannot read this (timeout)" in str(reports[2].fatal)
    assert sorted(path.name for path in Path("out").glob("part-*")) == ["part-00000.parquet", "part-00001.parquet"]


def test_a_store_that_stops_answering_within_a_parquet_file_ends_the_job_as_well(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"image": [Path("in/000.png").read_bytes()] * 40}), "pictures.parquet", row_group_size=20)
    open_file = Place.open

    def answers(self: Place) -> object:
        if self.path.endswith("pictures.parquet") and (folder / "out/part-00000.parquet").exists():
            raise StoreError("cannot read this (timeout)", where=self.name)
        return open_file(self)

    monkeypatch.setattr(Place, "open", answers)
    monkeypatch.setattr("fcos_cli.predict.cluster.worker.PAUSES", (0.0, 0.0))
    reports = run("pictures.parquet", monkeypatch)
    assert [report.fatal is None for report in reports] == [True, False, False]
    assert "the store returned none of 16 images: cannot read this (timeout)" in str(reports[1].fatal)
    assert [path.name for path in Path("out").glob("part-*")] == ["part-00000.parquet"]


def test_what_fails_for_a_moment_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, failures = Place.write, iter((True, True, False, False, False, True))

    def sometimes(self: Place, content: bytes) -> None:
        if "part-" in self.path and next(failures, False):
            raise OSError("stale file handle")
        write(self, content)

    monkeypatch.setattr(Place, "write", sometimes)
    monkeypatch.setattr("fcos_cli.predict.cluster.worker.PAUSES", (0.0, 0.0))
    reports = run("in", monkeypatch)
    assert [report.fatal for report in reports] == [None] * 3
    assert job_rows(Path("out")) == local_rows(Path("model.onnx"), "in", Path("local.jsonl"))


def test_what_nobody_expected_is_an_error_that_says_where(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first, *_) = run("in", monkeypatch, batch="many")
    assert "a worker failed (TypeError: '<' not supported" in str(first.fatal)
    assert "fcos_cli/predict/pipeline.py:" in str(first.fatal)


def test_pictures_that_kill_workers_end_the_job_with_their_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, roots = locate("out"), check_sources(["in"])
    JobFolder(out).begin({}, list_sources(["in"], roots, column=None, out=out), base=str(folder))
    counter = Attempts()
    worker = worker_here(task_of(out, roots, folder), Path("model.onnx"), monkeypatch, attempts=counter.begin)
    reports = [Report.from_json(worker({"number": numbers(2)[0][1:]})["report"][0]) for _ in range(MAX_ATTEMPTS + 1)]  # type: ignore[index]
    assert [report.fatal is None for report in reports] == [True] * MAX_ATTEMPTS + [False]
    assert "in/016.png" in str(reports[-1].fatal)


def test_errors_keep_their_exit_code_on_the_way() -> None:
    for kind in (FcosError, UsageError, DataError, ModelError):
        error = kind("what", where="here", remedy="do")
        back = Report.from_json(Report(3, Counts(1, 1), [error], error).to_json())
        assert type(back.fatal) is kind
        assert str(back.errors[0]) == str(error)
        assert back.counts == Counts(1, 1)
