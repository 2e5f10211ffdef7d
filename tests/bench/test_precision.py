"""Requested, available and actual precision."""

from dataclasses import replace
from typing import Any

import pytest

from fcos_cli.bench import precision
from fcos_cli.bench.precision import Opened, actual_precision, open_in_precision, precisions_to_try
from fcos_cli.bench.protocol import Job
from fcos_cli.errors import ModelError, UsageError
from tests.runtime.fakes import CornerDetector


def detector(file: str = "fp32", runs: str | None = None, backend: str = "onnxruntime", device: str = "cpu") -> Any:
    fake = CornerDetector(backend=backend, precision=runs or file, device=device)
    fake.facts = replace(fake.facts, precision=file)
    return fake


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return open(asked, able, flags, **detector), which opens a detector that supports only `able`."""

    def run(asked: str | None, able: set[str | None], *, flags: frozenset[str] = frozenset(), **facts: Any) -> Opened:
        def open_detector(*_: object, precision: str | None, **__: object) -> Any:
            if precision not in able:
                raise UsageError(f"no {precision} here")
            return detector(**{**facts, **({"runs": precision} if precision else {})})

        monkeypatch.setattr(precision, "open_detector", open_detector)
        monkeypatch.setattr(precision, "processor_flags", lambda: set(flags))
        return open_in_precision(Job("m", ("p",), asked=asked, attempts=precisions_to_try(asked)))

    return run


def test_the_files_own_precision_is_tried_last() -> None:
    assert precisions_to_try(None) == (None,)
    assert precisions_to_try("fp16") == ("fp16", "bf16", None)
    assert precisions_to_try("bf16") == ("bf16", None)
    assert precisions_to_try("int8") == ("int8", None)


def test_no_note_if_the_requested_precision_runs(opening: Any) -> None:
    assert opening("bf16", {"bf16", None})[1:] == ("bf16", "bf16", None)
    assert opening(None, {None})[1:] == (None, "fp32", None)


def test_fp16_falls_back_to_bf16_with_a_note(opening: Any) -> None:
    opened = opening("fp16", {"bf16", None}, backend="openvino")
    assert (opened.attempt, opened.precision) == ("bf16", "bf16")
    assert opened.note == "fp16 was requested, but this processor has no fast fp16; ran in bf16"


def test_fp16_without_bf16_runs_in_the_files_precision(opening: Any) -> None:
    opened = opening("fp16", {None}, backend="pytorch")
    assert (opened.attempt, opened.precision) == (None, "fp32")
    assert opened.note.endswith("no fast fp16; ran in fp32")


def test_an_fp16_file_that_was_requested_in_fp16_has_one_reason(opening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    opened = opening("fp16", {"fp16", None}, file="fp16", flags=frozenset({"avx512_fp16"}))
    assert opened.note == ("fp16 was requested, but ONNX Runtime has no fp16 kernels for this processor; ran in fp32")
    other = opening("bf16", {None}, file="fp16", flags=frozenset({"avx512_fp16"}))
    assert other.note == "bf16 was requested, but no bf16 here; ran in fp32"


def test_if_the_hardware_has_fp16_the_note_quotes_the_error(opening: Any) -> None:
    assert "but no fp16 here" in opening("fp16", {None}, flags=frozenset({"avx512_fp16"})).note
    assert "but no fp16 here" in opening("fp16", {None}, device="cuda:0").note


def test_the_note_quotes_the_error_of_the_requested_precision_not_of_the_fallback(opening: Any) -> None:
    assert opening("int8", {None}).note == "int8 was requested, but no int8 here; ran in fp32"


def test_the_last_error_is_raised_if_no_precision_works(opening: Any) -> None:
    with pytest.raises(UsageError, match="no None here"):
        opening("fp16", set())


def test_other_errors_are_not_treated_as_unsupported_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object, **__: object) -> Any:
        raise ModelError("damaged")

    monkeypatch.setattr(precision, "open_detector", damaged)
    with pytest.raises(ModelError, match="damaged"):
        open_in_precision(Job("m", ("p",), attempts=("fp16", None)))


@pytest.mark.parametrize("flags", [set(), {"avx512_fp16"}])
def test_onnx_runtime_computes_fp16_files_in_fp32_on_x86(flags: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    precision, why = actual_precision(detector("fp16"), flags)
    assert precision == "fp32"
    assert why is not None


def test_fp16_is_trusted_elsewhere_if_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert actual_precision(detector("fp16"), {"asimdhp"}) == ("fp16", None)
    assert actual_precision(detector("fp16"), set())[0] == "fp32"
    assert actual_precision(detector("fp16", device="cuda:0"), set()) == ("fp16", None)


def test_an_fp16_file_computed_in_fp32_is_noted_even_if_not_requested(opening: Any) -> None:
    note = opening(None, {None}, file="fp16", runs="fp32", backend="openvino").note
    assert note == "the file is fp16, but openvino computes it in fp32 here; ran in fp32"
