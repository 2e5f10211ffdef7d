"""Benchmark statistics on hand-computed values."""

import pytest

from fcos_cli.bench.protocol import STAGES, Sample
from fcos_cli.bench.results import BenchResult, add_ratios, pareto_front, percentiles


def sample(total: float, **stages: float) -> Sample:
    return {**stages, "total": total}


def row(*totals: float, batch: int = 1, ap: float | None = None, name: str = "m") -> BenchResult:
    """A row with one sample per round."""
    return BenchResult(
        name, "onnxruntime", batch, precision="fp32", rounds=[[sample(total)] for total in totals], ap=ap
    )


def test_percentiles_are_interpolated_linearly() -> None:
    assert percentiles([float(value) for value in range(101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert percentiles([30.0, 10.0]) == {"p50": 20.0, "p95": 29.0, "p99": 29.8}
    assert percentiles([]) is None


def test_throughput_is_images_over_total_time() -> None:
    measured = row(100.0, 300.0, batch=4)  # 8 images in 0.4 s
    assert measured.images_per_s == pytest.approx(20.0)
    assert measured.ms_per_image == pytest.approx(50.0)  # the median batch took 200


def test_ratios_are_computed_within_rounds_so_that_drift_cancels() -> None:
    """The machine is ten times slower for some rounds, which makes medians over all rounds meaningless."""
    slow, fast = row(10, 10, 100, 100, 100), row(5, 5, 50, 50, 50)
    add_ratios([slow, fast])
    assert (slow.ratio, fast.ratio) == (1.0, 2.0)


def test_ratios_are_per_image_and_skip_unmeasured_rows() -> None:
    one, four, absent = row(10.0), row(20.0, batch=4), BenchResult("x", None, 1, skipped="no GPU")
    add_ratios([one, absent, four])
    assert (one.ratio, four.ratio, absent.ratio) == (1.0, 2.0, None)


def test_there_are_no_ratios_to_a_first_row_that_could_not_run() -> None:
    one, four, absent = row(10.0), row(20.0, batch=4), BenchResult("x", None, 1, skipped="no GPU")
    add_ratios([absent, one, four])
    assert one.ratio is four.ratio is absent.ratio is None


def test_pareto_front_holds_the_non_dominated_rows() -> None:
    fast, middle, best = row(10, ap=0.2), row(20, ap=0.3), row(40, ap=0.4)
    slower_and_worse, as_good_but_slower = row(30, ap=0.25), row(25, ap=0.3)
    without_ap = row(1)
    rows = [best, slower_and_worse, as_good_but_slower, fast, without_ap, middle]
    assert pareto_front(rows) == [fast, middle, best]
    assert pareto_front([without_ap]) == []


def test_pareto_front_compares_times_per_image() -> None:
    single, batched = row(10, ap=0.3), row(20, batch=4, ap=0.3)
    assert pareto_front([single, batched]) == [batched]


def test_json_of_a_measured_row_has_every_stage_and_null_if_not_timed() -> None:
    samples = [[sample(12.0, open=1.0, preprocess=2.0, network_decode_nms=9.0)]] * 2
    document = BenchResult(
        "m.onnx", "onnxruntime", 1, precision="fp32", rounds=samples, peak_memory=5 * 10**6
    ).to_json()
    assert tuple(document["stages_ms"]) == STAGES
    assert document["stages_ms"]["network"] is document["stages_ms"]["decode_nms"] is None
    assert document["stages_ms"]["network_decode_nms"] == {"p50": 9.0, "p95": 9.0, "p99": 9.0}
    assert (document["p50_ms"], document["peak_memory_mb"], document["samples"]) == (12.0, 5.0, 2)
    assert "skipped" not in document
    assert document["AP"] is document["AP_per_ms"] is None


def test_json_with_accuracy() -> None:
    document = row(20.0, 20.0, ap=0.4).to_json()
    assert (document["AP"], document["AP_per_ms"]) == (0.4, pytest.approx(0.02))


def test_json_of_a_skipped_row_keeps_its_keys_and_has_the_reason() -> None:
    document = BenchResult("m.engine", "tensorrt", 4, asked="fp16", skipped="no GPU").to_json()
    assert (document["skipped"], document["asked"], document["batch"]) == ("no GPU", "fp16", 4)
    assert document["p50_ms"] is document["images_per_s"] is document["stages_ms"]["total"] is None
