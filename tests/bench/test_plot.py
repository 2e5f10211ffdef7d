"""The benchmark plot, checked through the text of the SVG."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fcos_cli.bench import plot
from fcos_cli.bench.plot import check_plot_path, draw_plot
from fcos_cli.bench.results import BenchResult
from fcos_cli.errors import MissingExtra, UsageError

FACTS: dict[str, Any] = {"cpu": "Example CPU", "threads": 2, "gpus": ["NVIDIA X"], "rounds": 3, "pictures": 2}


def row(model: str, total: float, *, tail: float | None = None, **changes: Any) -> BenchResult:
    totals = (total, total, tail or total)
    parts = [{"open": 1.0, "preprocess": 2.0, "network": t - 5.0, "decode_nms": 2.0, "total": t} for t in totals]
    return BenchResult(model, "pytorch", 1, precision="fp32", rounds=[parts], **changes)


def texts(path: Path, rows: list[BenchResult], monkeypatch: pytest.MonkeyPatch, **facts: Any) -> str:
    """Return the plot as SVG with text kept as text."""
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")
    draw_plot(rows, {**FACTS, **facts}, path)
    return path.read_text(encoding="utf-8")


def test_bars_show_names_times_and_skipped_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row("x/a.onnx", 40.0),
        row("x/b.onnx", 20.0, tail=500.0),
        BenchResult("c.engine", None, 1, skipped="no GPU here"),
    ]
    svg = texts(tmp_path / "b.svg", rows, monkeypatch)
    for text in ("a.onnx", "b.onnx", "pytorch fp32", "40.0 ms  25.0/s", "no GPU here", "Example CPU", "NVIDIA X"):
        assert text in svg
    assert "decode + NMS" in svg
    assert "one graph" not in svg  # the legend has only stages that occur
    assert ">AP<" not in svg


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("a$_$b.onnx", 40.0, ap=0.4), BenchResult("c$^$.engine", None, 1, skipped="no GPU for c$^$")]
    svg = texts(tmp_path / "d.svg", rows, monkeypatch)
    assert "a$_$b.onnx" in svg
    assert "c$^$" in svg


def test_pareto_front_is_drawn_with_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    svg = texts(tmp_path / "f.svg", [row("a.onnx", 40.0, ap=0.4), row("b.onnx", 20.0, ap=0.3)], monkeypatch)
    assert ">AP<" in svg
    assert "(2) b.onnx" in svg


def test_a_png_is_large_enough_to_read(tmp_path: Path) -> None:
    draw_plot([row("a.onnx", 40.0, ap=0.4)], FACTS, tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as image:
        assert image.width == 1350
        assert image.height > 600


def test_plot_without_measured_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [BenchResult("c.engine", None, 1, skipped="no GPU")]
    svg = texts(tmp_path / "n.svg", rows, monkeypatch)
    assert "no GPU" in svg
    assert "Example CPU, 2 threads" in svg
    assert "Example CPU, default threads" in texts(tmp_path / "n.svg", rows, monkeypatch, threads=None)


@pytest.mark.parametrize("name", ["p.png", "p.svg", "p.PDF"])
def test_a_plot_replaces_an_earlier_one_and_no_other_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    draw_plot([row("a.onnx", 40.0)], FACTS, path)
    check_plot_path(path)
    path.write_bytes(b"a photo")
    with pytest.raises(UsageError, match="not a plot of fcos bench") as caught:
        check_plot_path(path)
    assert caught.value.where == str(path)


def test_unsupported_plots_fail_before_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    check_plot_path(Path("b.png"))
    with pytest.raises(UsageError, match="gif"):
        check_plot_path(Path("b.gif"))
    monkeypatch.setattr(plot, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra) as caught:
        check_plot_path(Path("b.png"))
    assert "fcos-cli[report]" in str(caught.value.remedy)
