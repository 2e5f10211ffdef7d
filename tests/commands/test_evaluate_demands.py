"""fcos eval --require, --not-worse and --promise: exit codes, and what is written before them."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli_runner import Fcos, created_files

IMAGES = 120


@pytest.fixture(scope="module")
def reds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of one red each, in which the `exported` model finds a circle of score red/256 over the whole image, and a
    square and a triangle of lower scores that are not labelled.
    """
    folder = tmp_path_factory.mktemp("reds")
    content: dict[str, list[object]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": i, "name": n} for i, n in ((1, "circle"), (2, "square"), (3, "triangle"))]
    for number in range(IMAGES):
        pixels = np.zeros((32, 48, 3), np.uint8)
        pixels[..., 0] = 192 + number % 64
        Image.fromarray(pixels).save(folder / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "width": 48, "height": 32})
        box = {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [0, 0, 48, 32], "area": 1536}
        content["annotations"].append({**box, "iscrowd": 0})
    (folder / "val.json").write_text(json.dumps(content))
    return folder / "val.json"


def test_requirements_that_are_met_change_nothing_but_the_words(fcos: Fcos, exported: Path, reds: Path) -> None:
    flags = ("--require", "AP50=0.9", "--require", "recall:circle=1")
    result = fcos("eval", exported, reds, *flags)
    assert result.code == 0
    assert "met: AP50 is 1.0000, required 0.9" in result.err
    assert fcos("eval", exported, reds, "--score", 0.125, *flags).code == 0  # the model's own threshold
    assert fcos("eval", exported, reds, "--score", 0.5, "--require", "AP50=0.9").code == 0
    document = fcos("eval", exported, reds, *flags, "--json").document
    assert [(gate["metric"], gate["class"], gate["met"]) for gate in document["gates"]] == [
        ("AP50", None, True),
        ("recall", "circle", True),
    ]
    assert "gates" not in fcos("eval", exported, reds, "--json").document


def test_requirements_that_are_not_met_are_exit_code_6_after_all_results(
    fcos: Fcos, exported: Path, reds: Path
) -> None:
    flags = ("--require", "precision=0.9", "--require", "AP:square=0.5", "--require", "AP=0.9")
    result = fcos("eval", exported, reds, *flags, "--json", "--report", "r.html", "--save", "d.json")
    assert result.code == 6
    assert [gate["met"] for gate in result.document["gates"]] == [False, False, True]
    assert result.document["gates"][1]["measured"] is None
    assert result.document["metrics"]["AP50"] == pytest.approx(1)
    assert [path.name for path in created_files()] == ["d.json", "r.html"]
    assert "error: 2 of 3 requirements are not met" in result.err
    lines = result.err.partition("error: ")[2].splitlines()
    assert lines[1:3] == [f"  where: {exported}", "    precision is 0.3333, required 0.9"]
    assert lines[3].startswith("    AP:square cannot be measured")
    page = Path("r.html").read_text(encoding="utf-8")
    assert "2 of 3 failed." in page
    assert page.count('<span class="failed">') == 2
    people = fcos("eval", exported, reds, *flags)
    assert (people.code, people.out) == (6, "")
    assert "best threshold" in people.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--require AP500=0.9", "did you mean AP50?"),
        ("--require AP:sqare=0.9", "did you mean square?"),
        ("--promise recall:sqare=0.9", "did you mean square?"),
        ("--not-worse 0.01", "compares two models"),
        ("--out x.onnx", "--out needs --promise"),
        ("--promise recall=0.9 --out x.safetensors", "use x.onnx"),
        ("--score 0.5 --require recall:circle=0.9", "--score 0.5 leaves out boxes that fcos predict shows"),
        ("--score 0.2 --require precision=0.1", "--score 0.2 leaves out boxes that fcos predict shows"),
    ],
)
def test_mistakes_are_exit_code_2_before_anything_runs(
    fcos: Fcos, exported: Path, reds: Path, flags: str, words: str
) -> None:
    result = fcos("eval", exported, reds, "--json", *flags.split())
    assert (result.code, result.out) == (2, "")
    assert words in result.err
    assert "evaluating" not in result.err
    assert created_files() == []


def test_the_error_names_all_of_many_requirements(fcos: Fcos, exported: Path, reds: Path) -> None:
    limits = [f"{0.9 + number / 1000:g}" for number in range(60)]
    result = fcos("eval", exported, reds, *(word for limit in limits for word in ("--require", f"precision={limit}")))
    error = result.err.partition("error: ")[2]
    assert (result.code, [limit for limit in limits if f"required {limit}\n" not in error]) == (6, [])


def test_a_promise_is_about_one_model(fcos: Fcos, exported: Path, reds: Path) -> None:
    result = fcos("eval", exported, exported, reds, "--promise", "recall=0.9")
    assert (result.code, result.out) == (2, "")


def test_a_model_that_is_not_worse_passes_and_one_that_is_does_not(
    fcos: Fcos, exported: Path, model_file: Path, reds: Path
) -> None:
    flags = ("--limit", 20, "--not-worse", "0.01", "--not-worse", "AP:circle=0.4", "--json")
    same = fcos("eval", exported, exported, reds, *flags, "--require", "AP=0.9")
    assert same.code == 0
    assert [gate["met"] for gate in same.document["gates"]] == [True, True, True]
    worse = fcos("eval", exported, model_file, reds, *flags, "--require", "AP=0.9", "--report", "two.html")
    page = Path("two.html").read_text(encoding="utf-8")
    assert page.index("3 of 3 failed.") < page.index(">Comparison</h2>")
    assert "difference of AP:circle" in page
    assert worse.code == 6
    assert [gate["rule"] for gate in worse.document["gates"]] == ["require", "not-worse", "not-worse"]
    assert [gate["met"] for gate in worse.document["gates"]] == [False] * 3, worse.err
    assert "comparison" in worse.document
    assert "allowed -0.01" in worse.err
    assert fcos("eval", model_file, exported, reds, *flags).code == 0


def test_a_promise_is_written_only_where_it_is_told_to(fcos: Fcos, exported: Path, reds: Path) -> None:
    before = exported.read_bytes()
    flags = ("--promise", "recall:circle=0.9", "--promise", "precision:square=0.9")
    shown = fcos("eval", exported, reds, "--promise", "recall:circle=0.9", "--json")
    assert (shown.code, created_files(), exported.read_bytes()) == (0, [], before)
    (row,) = shown.document["promises"]
    assert (row["kept"], row["promise"]["threshold"], row["promise"]["images"]) == (True, 0.75, IMAGES)
    assert "promised: recall of circle ≥ 0.9 on new images of the same kind, with 90% confidence" in shown.err

    broken = fcos("eval", exported, reds, *flags, "--out", "new.onnx", "--json")
    assert (broken.code, created_files(), exported.read_bytes()) == (6, [], before)
    assert [(row["kept"], row["highest_level"]) for row in broken.document["promises"]] == [(True, None), (False, 0)]
    assert "precision:square=0.9 cannot be promised: at best 0.0000 is measured, in" in broken.err
    assert "cannot be made from these images, so new.onnx was not written" in broken.err
    assert "not written" not in fcos("eval", exported, reds, *flags).err

    written = fcos("eval", exported, reds, "--promise", "recall:circle=0.9", "--out", "new.onnx")
    assert (written.code, [path.name for path in created_files()]) == (0, ["new.onnx"])
    info = fcos("info", "new.onnx")
    assert "promise: recall of circle ≥ 0.9 on new images of the same kind, with 90% confidence" in info.err
    assert "0.750" in info.err
    document = fcos("info", "new.onnx", "--json").document
    assert document["class_thresholds"] == [0.75, 0.125, 0.125]
    assert document["promises"][0]["data"]["name"] == "val.json"
    found = fcos("predict", reds.parent / "3.png", reds.parent / "63.png", "--model", "new.onnx", "--jsonl").out
    assert [len(json.loads(line)["detections"]) for line in found.splitlines()] == [3, 3]
    again = fcos("eval", "new.onnx", reds, "--promise", "recall:circle=0.9", "--out", "new.onnx")  # in place
    assert (again.code, "no longer records" in again.err) == (0, False)
    other = fcos("eval", "new.onnx", reds, "--promise", "recall=0.9", "--out", "new.onnx")
    assert (other.code, "new.onnx no longer records recall of circle ≥ 0.9" in other.err) == (0, True)
    assert fcos("info", "new.onnx", "--json").document["class_thresholds"] == [0.75] * 3


def test_a_gate_that_is_not_met_keeps_the_promise_from_being_written(fcos: Fcos, exported: Path, reds: Path) -> None:
    flags = ("--promise", "recall:circle=0.9", "--require", "precision=0.9", "--out", "new.onnx")
    assert fcos("eval", exported, reds, *flags).code == 6
    assert created_files() == []


def test_the_thresholds_that_will_be_written_are_those_that_are_judged(fcos: Fcos, exported: Path, reds: Path) -> None:
    """Squares, none of which is labelled, have scores from 0.37: a promise of 0.75 for all classes hides them."""
    flags = ("--promise", "recall=0.9", "--require", "precision=0.9")
    assert fcos("eval", exported, reds, *flags).code == 6  # the model as it is
    written = fcos("eval", exported, reds, *flags, "--out", "new.onnx", "--report", "r.html")
    assert (written.code, "met: precision is 1.0000, required 0.9" in written.err) == (0, True)
    assert "(100%), 0 false positives" in Path("r.html").read_text(encoding="utf-8")
    assert fcos("eval", "new.onnx", reds, "--require", "precision=0.9").code == 0


def test_a_reader_that_leaves_changes_neither_the_exit_code_nor_the_files(
    fcos: Fcos, monkeypatch: pytest.MonkeyPatch, exported: Path, reds: Path
) -> None:
    def leave(_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("fcos_cli.evaluate.run.emit_json", leave)
    failed = fcos("eval", exported, reds, "--require", "precision=0.9", "--json")
    assert (failed.code, "error: 1 of 1 requirement is not met" in failed.err) == (6, True)
    written = fcos("eval", exported, reds, "--promise", "recall:circle=0.9", "--out", "new.onnx", "--json")
    assert (written.code, [path.name for path in created_files()]) == (0, ["new.onnx"])


@pytest.mark.parametrize("damage", ["missing", "unreadable"])
def test_images_that_are_absent_leave_nothing_to_require(
    fcos: Fcos, exported: Path, reds: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(reds.parent, tmp_path / "reds")
    file, image = tmp_path / "reds" / "val.json", tmp_path / "reds" / "7.png"
    image.unlink() if damage == "missing" else image.write_bytes(b"no image")
    for flags in (("--require", "AP=0.1"), ("--promise", "recall:circle=0.5")):
        result = fcos("eval", exported, file, *flags, "--json")
        assert (result.code, result.out) == (3, "")
        assert "requirements and promises apply to all images of the data set; images" in result.err
        assert "where: 7.png" in result.err
        assert "or remove them from the annotations" in result.err


def test_images_that_are_absent_are_noted_in_the_results(
    fcos: Fcos, exported: Path, reds: Path, tmp_path: Path
) -> None:
    shutil.copytree(reds.parent, tmp_path / "reds")
    (tmp_path / "reds" / "7.png").unlink()
    result = fcos("eval", exported, tmp_path / "reds" / "val.json", "--json", "--report", "r.html")
    note = "images in the annotations but not on disk, skipped: 1 (7.png)"
    assert (result.code, result.document["images"], result.document["notes"]) == (0, IMAGES - 1, [note])
    assert note in Path("r.html").read_text(encoding="utf-8")
    assert result.err.count("not on disk") == 1


def damage(image: Path) -> None:
    """Replace it with one whose header is intact and whose pixels are not."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(image)
    image.write_bytes(image.read_bytes()[:2000])


@pytest.mark.parametrize("models", [1, 2])
def test_damaged_images_are_left_out_and_noted_if_nothing_is_required(
    fcos: Fcos, exported: Path, reds: Path, tmp_path: Path, models: int
) -> None:
    shutil.copytree(reds.parent, tmp_path / "reds")
    file = tmp_path / "reds" / "val.json"
    damage(tmp_path / "reds" / "7.png")
    result = fcos("eval", *[exported] * models, file, "--json", "--report", "r.html")
    assert result.code == 0, result.err
    document = result.document if models == 1 else result.document["models"][1]
    (note,) = document["notes"]
    assert "images that cannot be read, left out: 1 (the image is truncated" in note
    assert (document["images"], document["metrics"]["AR100"]) == (IMAGES - 1, pytest.approx(1))
    assert result.err.count("left out: 1") == 1
    assert "left out: 1" in Path("r.html").read_text(encoding="utf-8")
    required = fcos("eval", exported, file, "--json", "--require", "AP=0.1")
    assert (required.code, required.out, "7.png" in required.err) == (3, "", True)


def test_data_of_damaged_images_alone_is_an_error(fcos: Fcos, exported: Path, reds: Path, tmp_path: Path) -> None:
    shutil.copytree(reds.parent, tmp_path / "reds")
    for number in range(2):
        damage(tmp_path / "reds" / f"{number}.png")
    result = fcos("eval", exported, tmp_path / "reds" / "val.json", "--json", "--limit", 2)
    assert (result.code, result.out) == (3, "")
    assert "the image is truncated" in result.err


def test_promises_about_training_images_are_warned_of_also_with_a_limit(
    fcos: Fcos, exported: Path, reds: Path, tmp_path: Path
) -> None:
    shutil.copytree(reds.parent, tmp_path / "reds")
    file = (tmp_path / "reds" / "val.json").rename(tmp_path / "reds" / "train.json")
    told = fcos("eval", exported, file, "--promise", "recall:circle=0.5", "--limit", 5).err
    assert "they promise nothing about new ones" in told
