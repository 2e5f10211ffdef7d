"""fcos eval: exit codes, JSON on stdout and the report."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fcos_cli.errors import UsageError
from fcos_cli.evaluate.coco import METRICS
from tests.cli_runner import Fcos, created_files
from tests.runtime.onnx_files import write_onnx


@pytest.mark.parametrize("evaluator", ["hotcoco", "pycocotools"])
def test_json_is_one_document(fcos: Fcos, model_file: Path, shapes: Path, evaluator: str) -> None:
    result = fcos("eval", model_file, shapes, "--json", "--evaluator", evaluator)
    assert result.code == 0
    document = result.document
    assert document["schema_version"] == 1
    assert (document["model"], document["data"], document["images"]) == (str(model_file), str(shapes), 4)
    assert list(document["metrics"]) == list(METRICS)
    assert [(row["name"], row["category_id"]) for row in document["per_class"]] == [
        ("circle", 1),
        ("square", 2),
        ("triangle", 3),
    ]
    keys = {"name", "category_id", "AP", "AP50", "best_threshold", "truths"}
    assert all(keys <= set(row) for row in document["per_class"])
    assert created_files() == []


def test_tables_go_to_stderr(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    result = fcos("eval", model_file, shapes)
    assert (result.code, result.out) == (0, "")
    assert "AP50" in result.err
    assert "triangle" in result.err


def test_split_and_limit_select_the_images(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    def images(*flags: object) -> int:
        count: int = fcos("eval", model_file, shapes, "--json", *flags).document["images"]
        return count

    assert images("--split", "train", "--limit", 5) == 5
    assert images("--split", "all") == 16


def test_unusable_data_is_exit_code_3(fcos: Fcos, model_file: Path, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments in ((tmp_path / "gone",), (tmp_path / "empty",), (shapes, "--split", "nope")):
        result = fcos("eval", model_file, *arguments, "--json")
        assert (result.code, result.out) == (3, "")


def test_unknown_evaluator_is_exit_code_2(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    assert fcos("eval", model_file, shapes, "--evaluator", "nope").code == 2


def test_report_is_written_together_with_json(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    result = fcos("eval", model_file, shapes, "--report", "out/report.html", "--json")
    assert (result.code, result.document["images"]) == (0, 4)
    assert [path.name for path in created_files()] == ["out", "report.html"]
    assert Path("out/report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert fcos("eval", model_file, shapes, "--report", "out").code == 2
    assert fcos("eval", model_file, shapes, "--limit", 1, "--report", "out/report.html").code == 0  # it is replaced


@pytest.mark.parametrize(("name", "content"), [("val.json", '{"images": []}'), ("index.html", "<!doctype html><p>Hi")])
def test_a_report_does_not_replace_other_files(
    fcos: Fcos, model_file: Path, shapes: Path, name: str, content: str
) -> None:
    Path(name).write_text(content)
    result = fcos("eval", model_file, shapes, "--report", name)
    assert (result.code, name in result.err, "not a report of fcos eval" in result.err) == (2, True, True)
    assert Path(name).read_text() == content


def test_two_models_are_compared(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    document = fcos("eval", model_file, model_file, shapes, "--report", "r.html", "--json").document
    assert document.keys() == {"schema_version", "models", "data", "split", "comparison"}
    alone = fcos("eval", model_file, shapes, "--json").document
    assert [model["metrics"] for model in document["models"]] == [alone["metrics"]] * 2
    comparison = document["comparison"]
    assert list(comparison["metrics"]) == list(METRICS)
    assert comparison["metrics"]["AP"]["difference"] == comparison["metrics"]["AP"]["high"] == 0
    assert [row["name"] for row in comparison["per_class"]] == ["circle", "square", "triangle"]
    assert 'id="comparison"' in Path("r.html").read_text(encoding="utf-8")
    people = fcos("eval", model_file, model_file, shapes)
    assert (people.code, people.out) == (0, "")
    assert "B - A" in people.err


def test_tiles_are_used_by_all_models_and_named_in_every_output(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    flags = ("--tile", 40, "--overlap", 10, "--batch", 3)
    document = fcos("eval", model_file, shapes, *flags, "--report", "r.html", "--json").document
    assert document["tiles"] == {"side": 40, "overlap": 10}
    assert document["images"] == 4
    words = "tiles of 40 px that overlap by 10 px"
    assert words in Path("r.html").read_text(encoding="utf-8")
    assert words in " ".join(fcos("eval", model_file, shapes, *flags).err.split())  # a long path wraps the title
    both = fcos("eval", model_file, model_file, shapes, *flags, "--json").document
    assert both["tiles"] == document["tiles"]
    assert [model["metrics"] for model in both["models"]] == [document["metrics"]] * 2
    assert "tiles" not in fcos("eval", model_file, shapes, "--json").document


def test_a_model_without_a_class_of_the_data_is_named_before_anything_is_evaluated(
    fcos: Fcos, exported: Path, shapes: Path, tmp_path: Path
) -> None:
    other = write_onnx(tmp_path / "other.onnx")
    result = fcos("eval", exported, other, shapes)
    assert (result.code, "no class in common" in result.err, str(other) in result.err) == (3, True, True)
    assert "evaluating" not in result.err


@pytest.mark.parametrize("name", ["_write_report", "write_results"])
def test_results_are_printed_also_if_a_file_cannot_be_written(
    fcos: Fcos, exported: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UsageError("the disk is full")

    monkeypatch.setattr(f"fcos_cli.evaluate.run.{name}", fail)
    people = fcos("eval", exported, shapes, "--report", "r.html", "--save", "d.json")
    assert (people.code, "best threshold" in people.err, "the disk is full" in people.err) == (2, True, True)
    programs = fcos("eval", exported, shapes, "--report", "r.html", "--save", "d.json", "--json")
    assert (programs.code, programs.document["images"]) == (2, 4)


@pytest.mark.parametrize("flags", ["--overlap 0.2", "--tile 16", "--tile 640 --overlap 0.9"])
def test_invalid_tiles_are_exit_code_2_as_in_predict(fcos: Fcos, model_file: Path, shapes: Path, flags: str) -> None:
    result = fcos("eval", model_file, shapes, *flags.split())
    predicted = fcos("predict", shapes, "--model", model_file, *flags.split())
    assert (result.code, result.out) == (2, "")
    assert (predicted.code, predicted.err.replace("predict", "eval").splitlines()[-3:]) == (
        2,
        result.err.splitlines()[-3:],
    )


def test_number_of_models_is_one_or_two(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    for models in ((), (model_file,) * 3):
        result = fcos("eval", *models, shapes)
        assert (result.code, result.out) == (2, "")
        assert "MODEL [MODEL] DATA" in result.err
        assert f"got {len(models) + 1} argument{'s' if models else ''}\n" in result.err


def test_saved_detections_give_the_same_metrics_in_pycocotools(
    fcos: Fcos, model_file: Path, shapes: Path, tmp_path: Path
) -> None:
    content = json.loads((shapes / "val.json").read_text())
    new_ids = {row["id"]: 1000 + 7 * row["id"] for row in content["images"]}
    files = {path.name: path for path in shapes.rglob("*.*")}
    for row in content["images"]:
        row["id"], row["file_name"] = new_ids[row["id"]], str(files[Path(row["file_name"]).name])
    for row in content["annotations"]:
        row["image_id"] = new_ids[row["image_id"]]
    annotations = tmp_path / "renumbered.json"
    annotations.write_text(json.dumps(content))
    saved = tmp_path / "results.coco.json"
    document = fcos("eval", model_file, annotations, "--save", saved, "--json").document
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(saved)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert document["metrics"]["AP"] == pytest.approx(evaluation.stats[0], abs=1e-9)
    assert document["metrics"]["AR100"] == pytest.approx(evaluation.stats[8], abs=1e-9)
    names = {row["image_id"]: row["file_name"] for row in json.loads(saved.read_text())}
    assert names == {row["id"]: row["file_name"] for row in content["images"]}
    assert fcos("eval", model_file, annotations, "--save", saved).code == 0  # an earlier result is replaced
    refused = fcos("eval", model_file, annotations, "--save", annotations)
    assert (refused.code, "not a result of fcos in this format" in refused.err) == (2, True)
    assert json.loads(annotations.read_text()) == content


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--report x.json --save ./x.json", "--report and --save are the same file"),
        ("--save found.csv", "COCO results, which are JSON"),
        ("--save found", "COCO results, which are JSON"),
    ],
)
def test_outputs_that_cannot_be_meant_are_refused(
    fcos: Fcos, model_file: Path, shapes: Path, flags: str, words: str
) -> None:
    result = fcos("eval", model_file, shapes, *flags.split())
    assert (result.code, created_files()) == (2, [])
    assert words in result.err


def test_findings_are_those_of_train_with_their_remedies(
    fcos: Fcos, model_file: Path, shapes: Path, tmp_path: Path
) -> None:
    """A data set whose val split is its train split: `train --dry-run` and `eval` say the same about it."""
    content = json.loads((shapes / "train.json").read_text())
    box = {"image_id": content["images"][0]["id"], "bbox": [1, 1, 20, 20], "area": 400, "iscrowd": 0}
    rows = [{**box, "id": 5000, "category_id": 99}]
    rows += [{**box, "id": 6000 + n, "category_id": 1, "bbox": [n % 20, n // 20, 20, 20]} for n in range(120)]
    content["annotations"] += rows
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(shapes / "images")
    for name in ("train.json", "val.json"):
        (tmp_path / "data" / name).write_text(json.dumps(content))
    result = fcos("eval", model_file, tmp_path / "data")
    assert result.code == 0
    told = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert [line.split(": ")[1] for line in told][:3] == ["unknown-category", "few-boxes", "crowded-images"]
    assert "(val.json: annotations[" in told[0]
    assert told[0].endswith("declare the class")
    assert "--set model.max_detections=200" in told[2]
    trained = fcos("train", tmp_path / "data", "--init", model_file, "--size", 64, "--batch", 2, "--dry-run").err
    for line in told[1:]:
        line = line.replace("their metrics will be noisy", "too few to learn well")
        assert line.replace(" in the val split", " in the train split") in trained
    assert told[0].replace("val.json", "train.json") in trained
