from __future__ import annotations

import csv
import io
import json
import os
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import DataError, FcosError, UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.pipeline import Failure, Prediction
from fcos_cli.predict.sources.frames import Clip, Moment
from fcos_cli.predict.writers import check_replaceable, format_of, open_writer
from fcos_cli.runtime.results import Detections

CLASSES = ClassTable(("cat", "dog, small"), (17, 3))


def detections(*rows) -> Detections:
    return Detections(
        np.array([r[:4] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[4] for r in rows], np.float32),
        np.array([r[5] for r in rows], np.int64),
    )


TWO = Prediction(Path("in/a.jpg"), 64, 48, detections((1, 2, 11.5, 22, 0.9, 1), (0, 0, 64, 48, 0.3, 0)))
NONE = Prediction(Path("b.jpg"), 10, 20, detections())
FAILED = Failure(Path("c.jpg"), DataError("the image file is empty (0 bytes)", where="c.jpg"))


def written(format, *results) -> str:
    stream = io.StringIO()
    with open_writer(stream, classes=CLASSES, model="m.safetensors", format=format) as writer:
        for result in results:
            writer.write(result)
    return stream.getvalue()


def test_json_document():
    assert json.loads(written("json", TWO, FAILED, NONE)) == {
        "schema_version": 1,
        "model": "m.safetensors",
        "results": [
            {
                "source": str(Path("in/a.jpg")),
                "width": 64,
                "height": 48,
                "detections": [
                    {"box": [1.0, 2.0, 11.5, 22.0], "score": 0.9, "class": "dog, small", "category_id": 3},
                    {"box": [0.0, 0.0, 64.0, 48.0], "score": 0.3, "class": "cat", "category_id": 17},
                ],
            },
            {"source": "b.jpg", "width": 10, "height": 20, "detections": []},
        ],
        "failed": [{"source": "c.jpg", "error": "the image file is empty (0 bytes)"}],
    }


def test_empty_json_document_starts_with_the_schema_version():
    text = written("json")
    assert text.startswith('{"schema_version": 1')
    assert json.loads(text) == {"schema_version": 1, "model": "m.safetensors", "results": [], "failed": []}


def test_json_of_failures_alone_is_a_whole_document_and_of_an_error_before_them_none():
    assert json.loads(written("json", FAILED))["results"] == []
    stream = io.StringIO()
    with pytest.raises(KeyError), open_writer(stream, classes=CLASSES, model="m", format="json"):
        raise KeyError
    assert stream.getvalue() == ""


def test_jsonl_has_a_line_per_result():
    rows = [json.loads(line) for line in written("jsonl", TWO, FAILED, NONE).splitlines()]
    assert [r["source"] for r in rows] == [str(Path("in/a.jpg")), "c.jpg", "b.jpg"]
    assert all(r["schema_version"] == 1 for r in rows)
    assert rows[1]["error"] == "the image file is empty (0 bytes)"
    assert rows[2]["detections"] == []


def test_json_lines_are_flushed():
    read, write = os.pipe()
    with (
        os.fdopen(read) as reader,
        os.fdopen(write, "w") as stream,
        open_writer(stream, classes=CLASSES, model="m", format="jsonl") as writer,
    ):
        writer.write(NONE)
        assert json.loads(reader.readline())["source"] == "b.jpg"


def test_coco_results_have_xywh_boxes_category_ids_and_image_ids():
    assert json.loads(written("coco", FAILED, TWO)) == [
        {"image_id": 2, "file_name": str(Path("in/a.jpg")), "category_id": 3, "bbox": [1, 2, 10.5, 20], "score": 0.9},
        {"image_id": 2, "file_name": str(Path("in/a.jpg")), "category_id": 17, "bbox": [0, 0, 64, 48], "score": 0.3},
    ]
    assert json.loads(written("coco")) == []


def test_coco_scores_are_exact():
    values = np.random.default_rng(0).random(1000, np.float32)
    prediction = Prediction(Path("a"), 9, 9, detections(*[(0, 0, 9, 9, v, 0) for v in values]))
    back = np.array([row["score"] for row in json.loads(written("coco", prediction))], np.float32)
    np.testing.assert_array_equal(back, values)


def test_frames_have_number_and_time_in_every_format():
    clip = Clip(Path("clip.mp4"), Fraction(25))
    frame = replace(TWO, source=clip.source, moment=Moment(clip, 12, Fraction(12, 25)))
    for text in (written("jsonl", frame), json.dumps(json.loads(written("json", frame))["results"][0])):
        row = json.loads(text)
        assert (row["source"], row["frame"], row["time"]) == ("clip.mp4", 12, 0.48)
    assert {(r["file_name"], r["frame"], r["time"]) for r in json.loads(written("coco", frame))} == {
        ("clip.mp4", 12, 0.48)
    }
    rows = list(csv.DictReader(io.StringIO(written("csv", frame))))
    assert (rows[0]["source"], rows[0]["frame"], rows[0]["time"]) == ("clip.mp4", "12", "0.48")


def test_csv_has_a_row_per_detection():
    rows = list(csv.DictReader(io.StringIO(written("csv", TWO, FAILED, NONE))))
    assert len(rows) == 2
    columns = ["source", "x1", "y1", "x2", "y2", "score", "class", "category_id", "frame", "time"]
    assert list(rows[0]) == columns
    assert (rows[0]["frame"], rows[0]["time"]) == ("", "")
    assert rows[0]["class"] == "dog, small"
    assert [float(rows[0][k]) for k in ("x1", "y1", "x2", "y2", "score")] == [1, 2, 11.5, 22, 0.9]


@pytest.mark.parametrize(("name", "start"), [("o.json", "{"), ("o.JSONL", "{"), ("o.csv", "source,")])
def test_format_follows_the_suffix_and_folders_are_created(tmp_path, name, start):
    path = tmp_path / "new" / name
    with open_writer(path, classes=CLASSES, model="m", format=format_of(path)) as writer:
        writer.write(TWO)
    assert path.read_text(encoding="utf-8").startswith(start)
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_failed_write_keeps_the_existing_file(tmp_path):
    path = tmp_path / "o.json"
    before = '{"schema_version": 1, "model": "before"}'
    path.write_text(before, encoding="utf-8")

    def fail_half_way():
        with open_writer(path, classes=CLASSES, model="m", format="json") as writer:
            writer.write(TWO)
            assert path.read_text(encoding="utf-8") == before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]


def test_new_file_has_default_permissions(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "ours") as stream:
        stream.write("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_file_names_that_are_not_utf8(tmp_path):
    odd = Prediction(Path(os.fsdecode(b"caf\xe9.jpg")), 9, 9, detections((0, 0, 9, 9, 0.5, 0)))
    for format in ("json", "jsonl", "csv"):
        with open_writer(tmp_path / f"o.{format}", classes=CLASSES, model="m", format=format) as writer:
            writer.write(odd)
    assert json.loads((tmp_path / "o.jsonl").read_text(encoding="utf-8"))["source"] == str(odd.source)
    assert b"caf\xe9.jpg" in (tmp_path / "o.csv").read_bytes()


def test_the_remedy_for_an_unknown_suffix_names_every_format():
    with pytest.raises(UsageError) as caught:
        format_of(Path("tracks.txt"))
    assert caught.value.where == "tracks.txt"
    assert caught.value.remedy == "use .json, .jsonl, .csv, .coco.json or, with --track, .mot.txt"


def test_an_unusable_path_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dir.json").mkdir()
    for target in (tmp_path / "dir.json", tmp_path / "file" / "o.json"):
        with pytest.raises(UsageError) as caught, open_writer(target, classes=CLASSES, model="m", format="json"):
            pass
        assert caught.value.where == str(target)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_full_disk_is_reported():
    with pytest.raises(FcosError, match="writing failed"), atomic_write(Path("/dev/full")) as stream:
        stream.write("x")


def test_error_in_the_block_is_raised(tmp_path):
    with pytest.raises(BrokenPipeError), atomic_write(tmp_path / "o"):
        raise BrokenPipeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="not on Windows")
def test_device_is_written_directly():
    with atomic_write(Path("/dev/null")) as stream:
        stream.write("x")
    assert not Path("/dev/null").is_file()


# ---------------------------------------------------------------- tracks


def tracked(number: int, *rows, ids) -> Prediction:
    clip = Clip(Path("c.mp4"), Fraction(25))
    found = replace(detections(*rows), ids=np.array(ids))
    return Prediction(Path("c.mp4"), 64, 48, found, None, Moment(clip, number, Fraction(number, 25)))


ROWS = ((1, 2, 11.5, 22, 0.9, 1), (0, 0, 64, 48, 0.25, 0))


def test_a_pipe_is_not_read_to_see_whether_it_may_be_replaced(tmp_path):
    os.mkfifo(tmp_path / "live.jsonl")
    check = threading.Thread(target=check_replaceable, args=(tmp_path / "live.jsonl", "jsonl"), daemon=True)
    check.start()
    check.join(5)
    assert not check.is_alive()


def test_identities_are_in_json_and_missing_ones_are_null():
    (row,) = json.loads(written("json", tracked(3, *ROWS, ids=[7, 0])))["results"]
    assert [found["id"] for found in row["detections"]] == [7, None]
    assert "id" not in json.loads(written("jsonl", TWO))["detections"][0]


def test_coco_results_have_track_ids():
    first, second = json.loads(written("coco", tracked(3, *ROWS, ids=[7, 0])))
    assert (first["track_id"], first["frame"]) == (7, 3)
    assert "track_id" not in second


def test_csv_has_a_column_of_identities_only_if_objects_are_tracked():
    stream = io.StringIO()
    with open_writer(stream, classes=CLASSES, model="m", format="csv", tracked=True) as writer:
        writer.write(tracked(3, *ROWS, ids=[7, 0]))
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [(row["frame"], row["id"]) for row in rows] == [("3", "7"), ("3", "")]
    assert "id" not in next(csv.reader(io.StringIO(written("csv", TWO))))


def test_mot_lines_are_those_of_motchallenge():
    text = written("mot", tracked(0, *ROWS, ids=[7, 0]), FAILED, tracked(12, ROWS[1], ids=[2]))
    assert text == "1,7,1.00,2.00,10.50,20.00,0.9000,-1,-1,-1\n13,2,0.00,0.00,64.00,48.00,0.2500,-1,-1,-1\n"


def test_a_mot_file_is_replaced_and_somebodys_labels_are_not(tmp_path):
    file = tmp_path / "t.mot.txt"
    for text in ("0 0.5 0.5 0.1 0.1\n", "1,2,3\n"):
        file.write_text(text)
        with pytest.raises(UsageError), open_writer(file, classes=CLASSES, model="m", format="mot"):
            pass
    file.write_text(written("mot", tracked(0, *ROWS, ids=[1, 2])))
    with open_writer(file, classes=CLASSES, model="m", format="mot"):
        pass
    assert file.read_text() == ""
