"""The report of a run shows the run, and changes nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fcos_cli.data.samples import Dataset
from fcos_cli.errors import ModelError
from fcos_cli.train import loop
from fcos_cli.train.loop import train
from fcos_cli.train.tracking import report
from fcos_cli.train.tracking.metrics import read_rows
from fcos_cli.train.tracking.report import RunReport, curves, first_examples, histogram, summary
from tests.browser import Browser
from tests.train.runs import Recorder, config_of, splits

CONFIG = config_of(epochs=1)


@pytest.fixture(scope="module")
def data(shapes: Path) -> tuple[Dataset, Dataset]:
    return splits(shapes)


@pytest.fixture(scope="module")
def run(data: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A finished run of three steps, and the batches its network saw."""
    folder, seen = tmp_path_factory.mktemp("report") / "run", []
    step = loop.optimizer_step

    def spy(parts: Any, batch: Any) -> Any:
        seen.append(batch)
        return step(parts, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", 1)
        patch.setattr(loop, "optimizer_step", spy)
        train(CONFIG, *data, folder=folder, resume=False, listener=Recorder())
    return folder, seen


def test_first_batches_are_those_the_network_saw(run: tuple[Path, list[Any]], data: tuple[Dataset, Dataset]) -> None:
    state = torch.get_rng_state()
    examples = first_examples(CONFIG, data[0])
    assert torch.equal(torch.get_rng_state(), state)
    seen = [(name, image) for batch in run[1] for name, image in zip(batch.names, batch.images, strict=True)]
    assert [example.name for example in examples] == [name for name, _ in seen]
    assert all(torch.equal(e.image, image) for e, (_, image) in zip(examples, seen, strict=True))
    boxes = [batch.truth.boxes[i][batch.truth.classes[i] >= 0] for batch in run[1] for i in range(len(batch.names))]
    assert all(torch.equal(example.boxes, rows) for example, rows in zip(examples, boxes, strict=True))


def test_report_covers_the_run_and_changes_no_other_file(
    run: tuple[Path, list[Any]], data: tuple[Dataset, Dataset], browser: Browser
) -> None:
    folder = run[0]
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "report.html"}
    path = RunReport(CONFIG, *data, folder=folder).write()
    assert path == folder / "report.html"
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file != path} == before
    last = [row for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "val"][-1]
    browser.open(path, width=400)
    assert browser.errors() == []
    assert browser.overflow() == 0
    assert [browser.find(f"#{part}").tag_name for part in ("training", "labels", "batches")] == ["section"] * 3
    assert browser.find(".tiles .value").text == f"{last['AP']:.3f}"
    assert len(browser.find_all("#batches svg")) == 6
    assert len(browser.find_all("#training svg.chart")) == 4


def test_each_validation_writes_the_report_about_the_best_weights_so_far(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[float] = []

    def watched(path: Path, dataset: Dataset, models: Any, **_: Any) -> None:
        shown.append(models[0].result.metrics["AP"])

    monkeypatch.setattr(report, "write_report", watched)
    listener = RunReport(CONFIG, *data, folder=tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    recorder = Recorder()
    train(config_of(epochs=2), *data, folder=tmp_path / "run", resume=False, listener=recorder)
    first = recorder.evaluations[0]
    for best, ap in ((True, 0.3), (False, 0.2), (True, 0.4)):
        result = replace(first.result, metrics={**first.result.metrics, "AP": ap})
        listener.validated({}, first._replace(best=best, result=result))
    assert shown == [0.3, 0.3, 0.4]


def test_the_best_ap_is_that_of_the_weights_shown(
    run: tuple[Path, list[Any]], data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(report, "write_report", lambda *_, extra, **__: texts.append(extra[0].content))
    shutil.copytree(run[0], tmp_path / "run")
    rows = read_rows(run[0] / "metrics.jsonl")
    (last,) = [row for row in rows if row["kind"] == "val"]
    other = {**last, "epoch": 7, "AP": 0.9}  # on val data that has changed since
    (tmp_path / "run/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (other, *rows)))
    RunReport(CONFIG, *data, folder=tmp_path / "run").write()
    recorder = Recorder()
    train(config_of(epochs=2), *data, folder=tmp_path / "run", resume=True, listener=recorder)
    listener = RunReport(CONFIG, *data, folder=tmp_path / "run")
    listener.validated({}, recorder.evaluations[0]._replace(best=True))
    expected = [(last["AP"], 1), (recorder.evaluations[0].result.metrics["AP"], 2)]
    for text, (ap, epoch) in zip(texts, expected, strict=True):
        assert f"best AP on val {ap:.3f} after epoch {epoch}." in text


def test_the_first_batches_are_made_once(
    run: tuple[Path, list[Any]], data: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []
    monkeypatch.setattr(report, "write_report", lambda *_, extra, **__: pages.append(extra[2].content))
    listener = RunReport(CONFIG, *data, folder=run[0])
    listener.write()
    monkeypatch.setattr(report, "first_batches", lambda *_, **__: "made again")
    listener.write()
    assert pages[0] == pages[1]
    assert "after augmentation" in pages[0]


def test_the_report_of_a_resumed_run_is_about_the_best_weights_of_before(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []

    def watched(_path: Path, _dataset: Dataset, models: Any, **_: Any) -> None:
        shown.append(models[0].result.images)

    monkeypatch.setattr(report, "write_report", watched)
    monkeypatch.setattr(RunReport, "_evaluate_best", lambda _: pytest.fail("outside of a validation"))
    train(CONFIG, *data, folder=tmp_path, resume=False, listener=Recorder())
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    saved["progress"]["best"] = 0.9
    torch.save(saved, tmp_path / "state.pt")
    listener = RunReport(CONFIG, *data, folder=tmp_path)
    train(config_of(epochs=3), *data, folder=tmp_path, resume=True, listener=listener)
    assert shown == [len(data[1])] * 2


def test_failed_report_is_a_warning(
    run: tuple[Path, list[Any]],
    data: tuple[Dataset, Dataset],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ModelError("no such thing")

    monkeypatch.setattr(report, "write_report", broken)
    assert RunReport(CONFIG, *data, folder=run[0]).write() is None
    assert "the report could not be written: ModelError: no such thing" in capsys.readouterr().err


def test_incomplete_rows_are_skipped_and_no_rows_give_no_curves(tmp_path: Path) -> None:
    assert "<svg" not in curves([])
    rows = [{"kind": "val", "step": 3, "epoch": 1, "AP": 0.5, "AP50": 0.7, "AP75": 0.5}]
    (tmp_path / "m.jsonl").write_text(json.dumps(rows[0]) + '\n{"kind": "tr')
    assert read_rows(tmp_path / "m.jsonl") == rows
    drawn = curves(rows)
    assert drawn.count("<circle") == 3
    assert summary([], ap=0.5, epoch=1) == ""
    assert "3 steps in 1 epochs; best AP on val 0.500 after epoch 1." in summary(rows, ap=0.5, epoch=1)


def test_histogram_counts_boxes_and_images(data: tuple[Dataset, Dataset]) -> None:
    html, (learned, val) = histogram(*data), data
    for index, name in enumerate(learned.classes.names):
        counts = []
        for dataset in (learned, val):
            boxes = sum(int((s.classes == index).sum()) for s in dataset.samples)
            counts.append((boxes, sum(bool((s.classes == index).any()) for s in dataset.samples)))
        row = html.split(f">{name}</th>")[1].split("</tr>")[0]
        cells = [cell for cell in row.replace("</td>", "").split("<td>")[1:] if "span" not in cell]
        assert [int(cell) for cell in cells] == [*counts[0], *counts[1]]
