from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.selection import candidate_score, parse_classes, report_thresholds
from fcos_cli.runtime.facts import Facts
from tests.runtime import onnx_files

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


def test_the_candidates_are_the_models_own_unless_less_is_asked_for(model_file: Path, tmp_path: Path):
    for score, label_score, expected in ((None, None, None), (0.3, None, None), (0.02, 0.3, 0.02), (0.5, 0.01, 0.01)):
        assert candidate_score(model_file, score=score, label_score=label_score) == expected
    exported = onnx_files.write_onnx(tmp_path / "m.onnx", facts=replace(onnx_files.FACTS, score_threshold=0.3))
    assert candidate_score(exported, score=0.3, label_score=0.4) is None
    with pytest.raises(UsageError, match=r"so --score 0\.2 is too low"):
        candidate_score(exported, score=0.2, label_score=None)
    with pytest.raises(UsageError, match=r"so --label-score 0\.2 is too low"):
        candidate_score(exported, score=0.4, label_score=0.2)


def test_weights_go_below_their_own_threshold(tmp_path: Path):
    from fcos_cli.model.artifact import save
    from tests.tiny import tiny_artifact, tiny_config

    save(tmp_path / "strict.safetensors", tiny_artifact(config=tiny_config(score_threshold=0.3)))
    assert candidate_score(tmp_path / "strict.safetensors", score=0.2, label_score=None) == 0.2
