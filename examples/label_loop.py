"""Measure what machine labels are worth, and what correcting the pictures at the top of review.csv adds.

    python examples/label_loop.py DATA [--n 100] [--new 500] [--k 100] [--steps 2000 | --time 20m] [--seed 0]

The train split is shuffled: its first N pictures count as labelled, the next NEW as unlabelled. A detector trained on
the N labels NEW (`fcos predict --label coco`). Then three detectors are trained with equal settings and steps (whole
epochs), and scored on val (the best validation of each run):

- n: the N pictures;
- machine: these, and NEW with the machine's labels;
- corrected: the same with the true labels for the K pictures that review.csv puts first.

With --random there is a fourth, with the true labels for K pictures at random. Options that are not listed here go to
`fcos train`; set those that it would choose from the data, such as `--set augment.turn=0`, for runs that are alike.
Finished runs in OUT are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.model.classes import ClassTable

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--new", type=int, default=500)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--time", help="of each run, instead of steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/label_loop"))
    options, settings = parser.parse_known_args()
    asked = json.dumps({**vars(options), "settings": settings}, default=str, sort_keys=True)
    note = options.out / "options.json"
    if note.is_file() and note.read_text(encoding="utf-8") != asked:
        parser.error(f"{options.out} has results of other options: choose another --out")
    options.out.mkdir(parents=True, exist_ok=True)
    note.write_text(asked, encoding="utf-8")
    train_set, val_set = (read_dataset(options.data, split=split) for split in ("train", "val"))
    order = np.random.default_rng(options.seed).permutation(len(train_set)).tolist()
    known = [train_set.samples[index] for index in order[: options.n]]
    new = [train_set.samples[index] for index in order[options.n :][: options.new]]

    run(options, settings, "n", known, val_set)
    machine, doubtful = label(options.out, new, train_set.classes)
    truth = {sample.image: sample for sample in new}
    arms = {"machine": machine, "corrected": correct(machine, truth, doubtful[: options.k])}
    if options.random:
        chosen = np.random.default_rng(options.seed).permutation(len(doubtful))[: options.k]
        arms["random"] = correct(machine, truth, [doubtful[index] for index in chosen])
    for name, samples in arms.items():
        run(options, settings, name, known + samples, val_set)

    print(f"{'':<10} {'pictures':>8} {'boxes':>7} {'AP':>6} {'AP50':>6}")
    for name, samples in {"n": known, **{arm: known + more for arm, more in arms.items()}}.items():
        rows = [json.loads(line) for line in (options.out / name / "metrics.jsonl").read_text("utf-8").splitlines()]
        best = max((row for row in rows if row["kind"] == "val"), key=lambda row: row["AP"])
        boxes = sum(len(sample.boxes) for sample in samples)
        print(f"{name:<10} {len(samples):>8} {boxes:>7} {best['AP']:>6.3f} {best['AP50']:>6.3f}")


def run(options: argparse.Namespace, settings: list[str], name: str, samples: list[Sample], val_set: Dataset) -> None:
    """Train on these samples in OUT/NAME."""
    folder = options.out / name
    if (folder / "done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was interrupted
    data = options.out / f"{name}-data"
    write_coco(data / "train.json", samples, val_set.classes)
    write_coco(data / "val.json", val_set.samples, val_set.classes)
    epochs = max(1, round(options.steps * BATCH / len(samples)))
    length = ["--time", options.time] if options.time else ["--epochs", str(epochs)]
    flags = [*length, "--batch", str(BATCH), "--seed", str(options.seed), "--no-export", "--out", str(folder)]
    subprocess.run([sys.executable, "-m", "fcos_cli", "train", str(data), *flags, *settings], check=True)
    (folder / "done").touch()


def label(out: Path, new: list[Sample], classes: ClassTable) -> tuple[list[Sample], list[Path]]:
    """Label pictures with the detector in OUT/n. Return them, with their own paths, and all paths as in review.csv."""
    folder = out / "labelled"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)  # left by a run that was interrupted
        (out / "new.txt").write_text("".join(f"{sample.image.resolve()}\n" for sample in new), encoding="utf-8")
        command = ["predict", str(out / "new.txt"), "--model", str(out / "n"), "--label", "coco", "--out", str(folder)]
        subprocess.run([sys.executable, "-m", "fcos_cli", *command, "--link"], check=True)
        (folder / "done").touch()
    with (folder / "review.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    own = {sample.image.resolve(): sample.image for sample in new}
    source = {Path(row["picture"]).name: own[Path(row["source"])] for row in rows}
    found = read_dataset(folder, split="all", classes=classes).samples
    samples = [replace(sample, image=source[sample.image.name]) for sample in found]
    return samples, [source[Path(row["picture"]).name] for row in rows]


def correct(samples: list[Sample], truth: dict[Path, Sample], pictures: list[Path]) -> list[Sample]:
    """Replace the labels of these pictures with the true ones."""
    chosen = set(pictures)
    return [truth[sample.image] if sample.image in chosen else sample for sample in samples]


def write_coco(file: Path, samples: list[Sample], classes: ClassTable) -> None:
    """Write samples as a COCO file that refers to the pictures in place."""
    images, annotations = [], []
    for number, sample in enumerate(samples, start=1):
        size = {"width": sample.width, "height": sample.height}
        images.append({"id": number, "file_name": str(sample.image.resolve()), **size})
        for box, index, ignored in zip(sample.boxes.tolist(), sample.classes, sample.ignore, strict=True):
            x1, y1, x2, y2 = box
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": classes.ids[index]}
            annotations.append({**row, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": int(ignored)})
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"images": images, "annotations": annotations, "categories": classes.to_json()}
    file.write_text(json.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    main()
