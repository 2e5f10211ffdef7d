"""Long runs: memory and open files stay constant, and an interrupted run goes on without repeating or losing anything.

    python -m tests.benchmarks.long_runs [--only video,train] [--pictures 20000] [--frames 100000] [--epochs 200]

Run it from the root of the repository. The model has no network in it and the pictures are small, since what is
measured is the program around the network. Each part prints a curve and ends with a line for each thing that must
hold; the exit code is 1 if one does not.

- pictures, video: `fcos predict … --save found.jsonl` in one go (every hundredth picture is broken), then the same
killed with SIGKILL half-way and continued with --resume. Both files must be the same, byte for byte, and peak memory
within 5 % of that after 1,000 (5 % of the frames of a video).
- train: `fcos train` on 12 pictures; until the last epoch, peak memory within 5 % of that after a tenth of the epochs,
open files the same. The report at the end takes more, once.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image

from fcos_cli.data.demo_shapes import write_shapes
from tests.predict.clips import write_clip
from tests.runtime.onnx_files import write_onnx

ALLOWED = 1.05
"""Largest ratio of the peak memory at the end to that early in the run."""
BROKEN = 100
"""One picture in this many cannot be read."""
ROWS, WIDTH = 12, 40
"""Size of a printed curve."""


class Sample(NamedTuple):
    """State of a run. done: results so far. peak, memory: MB of the process and its children. files: open ones."""

    done: int
    seconds: float
    peak: float
    memory: float
    files: int


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="pictures,video,train")
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=200)
    options = parser.parse_args()
    parts = {
        "pictures": (pictures, options.pictures),
        "video": (video, options.frames),
        "train": (train, options.epochs),
    }
    failed = False
    for name in options.only.split(","):
        run, count = parts[name]
        print(f"\n{name}: {count:,}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            for text, holds in run(Path(folder), count):
                print(f"  {'ok  ' if holds else 'FAIL'} {text}", flush=True)
                failed |= not holds
    sys.exit(1 if failed else 0)


Check = tuple[str, bool]
"""What must hold, in words, and whether it does."""


def pictures(folder: Path, count: int) -> Iterator[Check]:
    source = folder / "in"
    source.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        path = source / f"{number:06}.jpg"
        if number % BROKEN == BROKEN - 1:
            path.write_bytes(b"\xff\xd8\xff broken")
        else:
            Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
    yield from predict_twice(folder, source, count, early=min(1000, count // 10), broken=count // BROKEN)


def video(folder: Path, count: int) -> Iterator[Check]:
    clip = write_clip(folder / "clip.mp4", count, size=(64, 48))
    yield from predict_twice(folder, clip, count, early=count // 20, broken=0)


def train(folder: Path, count: int) -> Iterator[Check]:
    data = write_shapes(folder / "data", train=12, val=4, size=64)
    run = folder / "run"
    small = ("model.backbone=test_efficientnet", "model.channels=16", "model.groups=4", "model.convs=1")
    settings = [part for value in (*small, "train.init=random") for part in ("--set", value)]
    line = ["train", data, "--out", run, "--epochs", count, "--size", 64, "--no-export", *settings]
    code, curve = watch(line, lambda: lines_of(run / "metrics.jsonl", b'"kind": "val"'), log=folder / "log")
    print_curve(curve, "epochs")
    if code:
        print((folder / "log").read_text(encoding="utf-8")[-2000:])
    yield f"exit code {code}, {curve[-1].done} of {count} epochs", (code, curve[-1].done) == (0, count)
    yield from steady([sample for sample in curve if sample.done < count], count // 10)
    yield f"the report after the last epoch: {max(sample.peak for sample in curve):.1f} MB", True


def predict_twice(folder: Path, source: Path, count: int, *, early: int, broken: int) -> Iterator[Check]:
    """In one go, and killed half-way and continued."""
    model = write_onnx(folder / "model.onnx")
    expected = 1 if broken else 0

    def run(name: str, *flags: str, stop: int | None = None) -> tuple[int, list[Sample]]:
        file = folder / name
        line = ["predict", source, "--model", model, "--save", file, *flags]
        return watch(line, Results(file), stop=stop, log=folder / "log")

    code, curve = run("whole.jsonl")
    print_curve(curve, "results")
    said = (folder / "log").read_text(encoding="utf-8")
    if not (folder / "whole.jsonl").exists():
        raise SystemExit(said)
    errors = said.count("error: ")
    rows = (folder / "whole.jsonl").read_bytes().splitlines()
    failed = sum(b'"error": ' in row for row in rows)
    yield f"exit code {code}, {len(rows):,} of {count:,} results", (code, len(rows)) == (expected, count)
    yield f"{broken:,} broken: {errors:,} errors printed, {failed:,} in the file", errors == failed == broken
    yield from steady(curve, early)

    code, curve = run("parts.jsonl", stop=count // 2)
    kept = curve[-1].done
    yield f"killed after {kept:,} results, exit code {code}", code == -signal.SIGKILL and 0 < kept < count
    code, curve = run("parts.jsonl", "--resume")
    said = f"{kept:,} results of an earlier run are kept" in (folder / "log").read_text(encoding="utf-8")
    same = (folder / "parts.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
    yield f"resumed: exit code {code}, earlier results {'kept' if said else 'lost'}", code == expected and said
    yield f"the file is {'' if same else 'not '}that of the run in one go", same


def steady(curve: list[Sample], early: int) -> Iterator[Check]:
    """Whether peak memory and open files stay at those of the first samples with `early` results."""
    last = curve[-1].done
    begin = [sample for sample in curve if min(early, last) <= sample.done <= 2 * early]
    end = [sample for sample in curve if sample.done >= 0.9 * last]
    most = max(sample.peak for sample in curve)
    ratio = most / begin[0].peak
    text = f"peak memory {begin[0].peak:.1f} MB after {begin[0].done:,}, {most:.1f} MB in the end: × {ratio:.3f}"
    yield text, ratio <= ALLOWED
    before, after = (median(sample.files for sample in samples) for samples in (begin, end))
    yield f"open files: {before:.0f} after {begin[0].done:,}, {after:.0f} in the end (medians)", after <= before + 2


def watch(
    line: list[object], count: Callable[[], int], *, log: Path, stop: int | None = None
) -> tuple[int, list[Sample]]:
    """Run `fcos LINE` and sample it. stop: number of results after which it is killed. Returns exit code and curve."""
    command = [sys.executable, "-m", "fcos_cli", *map(str, line)]
    curve, started = list[Sample](), time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stream)
        while process.poll() is None:
            with suppress(OSError, StopIteration):  # it has just ended
                curve.append(sample_of(process.pid, count(), time.monotonic() - started))
            if stop is not None and curve and curve[-1].done >= stop:
                process.kill()
            time.sleep(0.05 if not curve or curve[-1].seconds < 5 else 0.25)
    curve.append(curve[-1]._replace(done=count(), seconds=time.monotonic() - started))
    return process.wait(), curve


def sample_of(process: int, done: int, seconds: float) -> Sample:
    """Sums over the process and its children. Raises OSError if it has ended."""
    family = [process]
    for task in Path(f"/proc/{process}/task").iterdir():
        family += map(int, (task / "children").read_text().split())
    peak = memory = files = 0.0
    for member in family:
        status = Path(f"/proc/{member}/status").read_text()
        peak += kilobytes(status, "VmHWM") / 1000
        memory += kilobytes(status, "VmRSS") / 1000
        files += sum(1 for _ in Path(f"/proc/{member}/fd").iterdir())
    return Sample(done, seconds, peak, memory, int(files))


def kilobytes(status: str, name: str) -> int:
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")))


class Results:
    """Counts the results in the file of a run, finished or not; what was counted is not read again."""

    def __init__(self, file: Path) -> None:
        self.file, self.part = file, Path(f"{file}.part")
        self.count = self.place = 0

    def __call__(self) -> int:
        if self.file.exists():
            return lines_of(self.file)
        if self.part.exists():
            with self.part.open("rb") as stream:
                stream.seek(self.place)
                new = stream.read()
            self.count += new.count(b"\n")
            self.place += len(new)
        return max(self.count - 1, 0)  # the first line holds the settings


def lines_of(file: Path, text: bytes = b"\n") -> int:
    """Lines of a file, or those with `text`; 0 if there is none."""
    return file.read_bytes().count(text) if file.exists() else 0


def print_curve(curve: list[Sample], what: str) -> None:
    """A dozen samples, evenly spread over the results, with bars of the memory."""
    steps = np.linspace(0, curve[-1].done, ROWS)
    rows = [next(sample for sample in curve if sample.done >= step) for step in steps]
    most = max(sample.memory for sample in curve)
    print(f"  {what:>9} {'s':>7} {'peak MB':>8} {'MB':>7} {'files':>6}")
    for row in rows:
        bar = "█" * round(WIDTH * row.memory / most)
        print(f"  {row.done:9,} {row.seconds:7.1f} {row.peak:8.1f} {row.memory:7.1f} {row.files:6} {bar}")


if __name__ == "__main__":
    main()
