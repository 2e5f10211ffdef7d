"""What was asked for, what could be had, what really computed."""

from dataclasses import replace
from typing import Any

import pytest

from fcos_cli.bench import precision
from fcos_cli.bench.messages import Job
from fcos_cli.bench.precision import Opened, actual_precision, open_in_precision, precisions_to_try
from fcos_cli.errors import ModelError, UsageError
from tests.runtime.fakes import CornerDetector


def detector(file: str = "fp32", runs: str | None = None, backend: str = "onnxruntime", device: str = "cpu") -> Any:
    made = CornerDetector(backend=backend, precision=runs or file, device=device)
    made.facts = replace(made.facts, precision=file)
    return made


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Any:
    """open(asked, able, flags, **detector): what comes of it where only the precisions in `able` can be had."""

    def run(asked: str | None, able: set[str | None], *, flags: frozenset[str] = frozenset(), **facts: Any) -> Opened:
        def open_detector(*_: object, precision: str | None, **__: object) -> Any:
            if precision not in able:
                raise UsageError(f"no {precision} here")
            return detector(**{**facts, **({"runs": precision} if precision else {})})

        monkeypatch.setattr(precision, "open_detector", open_detector)
        monkeypatch.setattr(precision, "processor_flags", lambda: set(flags))
        return open_in_precision(Job("m", ("p",), asked=asked, attempts=precisions_to_try(asked)))

    return run


def test_the_files_own_precision_is_the_last_attempt() -> None:
    assert precisions_to_try(None) == (None,)
    assert precisions_to_try("fp16") == ("fp16", "bf16", None)
    assert precisions_to_try("bf16") == ("bf16", None)
    assert precisions_to_try("int8") == ("int8", None)


def test_what_is_asked_for_and_had_needs_no_note(opening: Any) -> None:
    assert opening("bf16", {"bf16", None})[1:] == ("bf16", "bf16", None)
    assert opening(None, {None})[1:] == (None, "fp32", None)


def test_fp16_on_a_processor_without_it_runs_in_bf16_and_says_so(opening: Any) -> None:
    opened = opening("fp16", {"bf16", None}, backend="openvino")
    assert (opened.attempt, opened.precision) == ("bf16", "bf16")
    assert opened.note == "fp16 was asked for, but this processor has no fast fp16; it ran in bf16"


def test_fp16_without_bf16_either_runs_as_the_file_is(opening: Any) -> None:
    opened = opening("fp16", {None}, backend="pytorch")
    assert (opened.attempt, opened.precision) == (None, "fp32")
    assert opened.note.endswith("no fast fp16; it ran in fp32")


def test_where_the_hardware_has_fp16_the_reason_is_the_refusal(opening: Any) -> None:
    assert "but no fp16 here" in opening("fp16", {None}, flags=frozenset({"avx512_fp16"})).note
    assert "but no fp16 here" in opening("fp16", {None}, device="cuda:0").note


def test_the_reason_is_that_of_what_was_asked_for_not_of_the_fallback(opening: Any) -> None:
    assert opening("int8", {None}).note == "int8 was asked for, but no int8 here; it ran in fp32"


def test_what_cannot_be_opened_at_all_raises_the_last_refusal(opening: Any) -> None:
    with pytest.raises(UsageError, match="no None here"):
        opening("fp16", set())


def test_other_errors_are_not_taken_for_a_lack_of_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object, **__: object) -> Any:
        raise ModelError("damaged")

    monkeypatch.setattr(precision, "open_detector", damaged)
    with pytest.raises(ModelError, match="damaged"):
        open_in_precision(Job("m", ("p",), attempts=("fp16", None)))


@pytest.mark.parametrize("flags", [set(), {"avx512_fp16"}])
def test_onnx_runtime_computes_a_file_of_fp16_in_fp32_on_x86(flags: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    precision, why = actual_precision(detector("fp16"), flags)
    assert precision == "fp32"
    assert why is not None


def test_elsewhere_it_is_believed_where_the_processor_has_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert actual_precision(detector("fp16"), {"asimdhp"}) == ("fp16", None)
    assert actual_precision(detector("fp16"), set())[0] == "fp32"
    assert actual_precision(detector("fp16", device="cuda:0"), set()) == ("fp16", None)


def test_a_file_of_fp16_that_is_computed_in_fp32_is_noted_unasked(opening: Any) -> None:
    note = opening(None, {None}, file="fp16", runs="fp32", backend="openvino").note
    assert note == "the file is fp16, but openvino computes it in fp32 here; it ran in fp32"
