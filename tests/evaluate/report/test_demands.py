"""The section on requirements and promises, also in a browser."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fcos_cli.evaluate.demands import Answers
from fcos_cli.evaluate.gates import Gate, Verdict
from fcos_cli.evaluate.promise.make import Outcome
from fcos_cli.evaluate.report.demands import demands_section
from fcos_cli.evaluate.report.page import page
from tests.browser import Browser
from tests.runtime.test_rewrite import PROMISE

MET = Verdict(Gate("require", "AP50", None, 0.5), True, 0.61234, None, None, "")
UNMET = Verdict(Gate("require", "recall", "<b>", 0.9), False, None, None, None, "")
WORSE = Verdict(Gate("not-worse", "AP", None, 0.01), False, -0.05, -0.0712, -0.0301, "")
KEPT = Outcome(Gate("promise", "recall", None, 0.95), replace(PROMISE, threshold=0.25, measured=0.97, images=61))
BROKEN = Outcome(Gate("promise", "precision", "cat", 0.99), None, 0.9)
HOPELESS = Outcome(Gate("promise", "precision", "dog", 0.99), None, 0, 0.25, 40)


def cells(html: str) -> list[list[str]]:
    """The text of each row of the table."""
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", html)
    return [[re.sub(r"<[^>]*>", "", cell) for cell in re.split("</t[hd]>", row)[:-1]] for row in rows]


def test_a_value_that_just_misses_its_limit_does_not_look_as_if_it_reached_it() -> None:
    unmet = replace(UNMET, measured=0.89996)
    worse = replace(WORSE, high=-0.01002)
    assert [row[2:5:2] for row in cells(demands_section(Answers([unmet, worse], []), "m.onnx").content)] == [
        ["0.89996", ""],
        ["-0.0500", "interval -0.0712 … -0.01002"],
    ]


def test_each_demand_has_its_limit_its_value_and_its_result() -> None:
    section = demands_section(Answers([MET, UNMET, WORSE], [KEPT, BROKEN, HOPELESS]), "m.onnx")
    assert section.title == "Requirements and promises"
    assert "4 of 6 failed." in section.content
    assert cells(section.content) == [
        ["AP50", "0.5", "0.6123", "passed", ""],
        ["recall:&lt;b&gt;", "0.9", "–", "failed", ""],
        ["difference of AP", "-0.01", "-0.0500", "failed", "interval -0.0712 … -0.0301"],
        ["promised recall", "0.95", "0.9700", "passed", "threshold 0.250, 90% confidence, 61 images"],
        ["promised precision:cat", "0.99", "–", "failed", "at most 0.9 can be promised"],
        [
            "promised precision:dog",
            "0.99",
            "–",
            "failed",
            HOPELESS.reason,
        ],
    ]


@pytest.mark.parametrize(
    ("answers", "title", "summary"),
    [
        (Answers([MET]), "Requirements", "Passed: 1 of 1."),
        (Answers([], [BROKEN]), "Promises", "1 of 1 failed."),
    ],
)
def test_only_what_was_asked_for_is_named(answers: Answers, title: str, summary: str) -> None:
    section = demands_section(answers, "m.onnx")
    assert section.title == title
    assert summary in section.content
    assert ("new images" in section.content) == bool(answers.outcomes)
    assert "interval" not in section.content


def test_it_fits_a_narrow_window_and_failures_stand_out(browser: Browser, tmp_path: Path) -> None:
    section = demands_section(Answers([MET, WORSE], [KEPT]), "m.onnx")
    (tmp_path / "r.html").write_text(page("title", "", [section]), encoding="utf-8")
    browser.open(tmp_path / "r.html", width=400)
    assert browser.errors() == []
    assert browser.overflow() == 0
    colours = {
        browser.run("return getComputedStyle(arguments[0]).color", browser.find(f".{k}")) for k in ("passed", "failed")
    }
    assert len(colours) == 2
