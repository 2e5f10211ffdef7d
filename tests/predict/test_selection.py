from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.selection import parse_classes, report_thresholds
from fcos_cli.runtime.facts import Facts

TABLE = ClassTable(("person", "dog", "dog, small", "7"), (1, 18, 19, 40))
FACTS = Facts(TABLE, ResizeRule("letterbox", (64, 64)), threshold=0.4)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], None),
        (["dog"], {1}),
        (["person, dog"], {0, 1}),
        (["person", "dog, small"], {0, 2}),
        (["18,1"], {0, 1}),
        (["7"], {3}),
    ],
)
def test_classes_are_chosen_by_name_or_id(texts, expected):
    assert parse_classes(texts, TABLE) == expected


@pytest.mark.parametrize(("text", "remedy"), [("persn", "did you mean person?"), ("DOG", "did you mean dog?")])
def test_an_unknown_class_is_an_error_with_the_nearest_name(text, remedy):
    with pytest.raises(UsageError) as caught:
        parse_classes([text], TABLE)
    assert caught.value.remedy == remedy
    assert repr(text) in caught.value.what


@pytest.mark.parametrize("text", ["zebra", "2", "", "person,"])
def test_an_unknown_class_far_from_all_lists_them(text):
    with pytest.raises(UsageError) as caught:
        parse_classes([text], TABLE)
    assert "person, dog" in caught.value.remedy


def test_thresholds_are_those_of_the_model_or_the_score_and_infinite_for_others():
    own = replace(FACTS, class_thresholds=(0.1, 0.2, 0.3, 0.6))
    values = [
        report_thresholds(FACTS, score=None, chosen=None),
        report_thresholds(own, score=None, chosen={1, 3}),
        report_thresholds(own, score=0.5, chosen={0}),
    ]
    expected = [[0.4] * 4, [np.inf, 0.2, np.inf, 0.6], [0.5, np.inf, np.inf, np.inf]]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
