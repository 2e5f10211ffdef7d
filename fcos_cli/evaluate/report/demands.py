"""Report section on what was required of a model, and what it promises."""

from __future__ import annotations

from fcos_cli.evaluate.demands import Answers
from fcos_cli.evaluate.gates import Verdict, enough_digits
from fcos_cli.evaluate.promise.make import Outcome
from fcos_cli.evaluate.report.page import Section, format_number, note, table, text


def demands_section(answers: Answers, model: str) -> Section:
    """Return the section with each demand, its limit, the value and whether it passed. model: name of the model judged.

    There must be at least one demand.
    """
    rows = [_gate(verdict) for verdict in answers.verdicts] + [_promise(outcome) for outcome in answers.outcomes]
    failed = sum(not verdict.met for verdict in answers.verdicts)
    failed += sum(outcome.promise is None for outcome in answers.outcomes)
    summary = f"{failed} of {len(rows)} failed." if failed else f"Passed: {len(rows)} of {len(rows)}."
    titles = ["requirements"] * bool(answers.verdicts) + ["promises"] * bool(answers.outcomes)
    title = " and ".join(titles).capitalize()
    explanation = f"What `fcos eval` was told to require of the model `{model}`."
    if any(verdict.gate.rule == "not-worse" for verdict in answers.verdicts):
        explanation += (
            " A difference is this model minus the other one; it fails if its whole interval lies below the limit."
        )
    if answers.outcomes:
        explanation += (
            " A promise is about new images of the same kind. Its measured value is that on these images, at the"
            " threshold that was chosen."
        )
    return Section(
        "demands",
        title,
        f'<p class="verdict">{text(summary)}</p>'
        + note(explanation)
        + table("Limits and results", ("metric", "at least", "measured", "result", "details"), rows, css="wide"),
    )


def _gate(verdict: Verdict) -> list[str]:
    gate = verdict.gate
    if gate.rule == "require":
        shown = "–" if verdict.measured is None else enough_digits(verdict.measured, gate.limit)
        return _row(gate.name, f"{gate.limit:g}", shown, "", passed=verdict.met)
    details = ""
    if verdict.low is not None and verdict.high is not None:
        high = enough_digits(verdict.high, -gate.limit, sign="+")
        details = f"interval {verdict.low:+.4f} … {high}"
    measured = "–" if verdict.measured is None else f"{verdict.measured:+.4f}"
    return _row(f"difference of {gate.name}", f"{0.0 - gate.limit:g}", measured, details, passed=verdict.met)


def _promise(outcome: Outcome) -> list[str]:
    name, level, promise = f"promised {outcome.wish.name}", f"{outcome.wish.limit:g}", outcome.promise
    if promise is None:
        return _row(name, level, "–", outcome.reason, passed=False)
    details = f"threshold {promise.threshold:.3f}, {promise.confidence:.0%} confidence, {promise.images:,} images"
    return _row(name, level, format_number(promise.measured, 4), details, passed=True)


def _row(name: str, limit: str, measured: str, details: str, *, passed: bool) -> list[str]:
    result = '<span class="passed">passed</span>' if passed else '<span class="failed">failed</span>'
    return [text(name), text(limit), text(measured), result, text(details)]
