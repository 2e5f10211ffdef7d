"""`fcos predict --engine ray` on the cores of this machine against the plain path on the same cores: speed and memory.

    python -m tests.benchmarks.ray_overhead [--pictures 5000] [--model default] [--folder FOLDER]

Run it from the root of the repository on an idle machine. The pictures are crops of the demo photos, 640 × 480, unless
--folder names others. Both runs are whole: they begin with the process and end with it, so the start of Ray counts.
Prints a curve of results and memory (of the process and all that it started), and a line for each thing that must
hold: the rows are the same, the speed is at least 0.85 of the plain path's, and memory in the last quarter is at most
5 % above that of the second. The exit code is 1 if one does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fcos_cli.predict.cluster.places import locate
from fcos_cli.predict.cluster.schema import counts_of
from fcos_cli.resources import demo_photos
from tests.benchmarks.long_runs import Results, kilobytes

LEAST_SPEED, MOST_MEMORY = 0.85, 1.05
DISTINCT = 100
"""Pictures that are made; the others are links to them."""
SIZE = (640, 480)


class Sample(NamedTuple):
    """done: results so far. memory: MB of the process and all that it started. processes: how many these are."""

    done: int
    seconds: float
    memory: float
    processes: int


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--model", default="default")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = options.folder or write_pictures(folder / "in", options.pictures)
        line = ["predict", str(source), "--model", options.model]
        found, parts = folder / "found.jsonl", folder / "found.parquet"
        plain = watch([*line, "--save", str(found)], Results(found))
        ray = watch([*line, "--engine", "ray", "--out", str(parts)], Parts(parts))
        same = plain_rows(found) == parquet_rows(parts)
    print(f"{len(os.sched_getaffinity(0))} cores, model {options.model}")
    for label, curve in (("plain", plain), ("ray", ray)):
        print_curve(label, curve)
    speed, memory = rate(ray) / rate(plain), growth(ray)
    checks = (
        (f"rows: {'the same' if same else 'different'}", same),
        (f"speed: {rate(ray):.2f} rows/s against {rate(plain):.2f}: {speed:.3f} of it", speed >= LEAST_SPEED),
        (f"memory: × {memory:.3f} from the second quarter to the last", memory <= MOST_MEMORY),
    )
    for text, holds in checks:
        print(f"  {'ok  ' if holds else 'FAIL'} {text}")
    sys.exit(0 if all(holds for _, holds in checks) else 1)


def write_pictures(folder: Path, count: int) -> Path:
    """Crops of the demo photos, each of them several times under different names."""
    folder.mkdir()
    choose = random.Random(0)
    photos = [Image.open(path).convert("RGB") for path in demo_photos()]
    for number in range(min(DISTINCT, count)):
        photo = photos[number % len(photos)]
        side = choose.uniform(0.6, 1) * min(photo.width, photo.height * SIZE[0] / SIZE[1])
        left, top = choose.uniform(0, photo.width - side), choose.uniform(0, photo.height - side * SIZE[1] / SIZE[0])
        crop = photo.resize(SIZE, box=(left, top, left + side, top + side * SIZE[1] / SIZE[0]))
        crop.save(folder / f"{number:06}.jpg", quality=90)
    for number in range(DISTINCT, count):
        os.link(folder / f"{number % DISTINCT:06}.jpg", folder / f"{number:06}.jpg")
    return folder


class Parts:
    """Counts the rows of the finished parts; none is read twice."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, dict[str, int]()

    def __call__(self) -> int:
        for path in self.folder.glob("part-*.parquet"):
            if path.name not in self.seen:
                self.seen[path.name] = counts_of(locate(str(path))).pictures
        return sum(self.seen.values())


def watch(line: list[str], count: Callable[[], int]) -> list[Sample]:
    """Run `fcos LINE` and sample it."""
    curve, started = [Sample(0, 0.0, 0.0, 0)], time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, "-m", "fcos_cli", *line], stdout=subprocess.DEVNULL, stderr=said)
        while process.poll() is None:
            family = family_of(process.pid)
            memory = sum(map(memory_of, family))
            curve.append(Sample(count(), time.monotonic() - started, memory, len(family)))
            time.sleep(1)
        curve.append(curve[-1]._replace(done=count(), seconds=time.monotonic() - started))
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode())
    return curve


def family_of(process: int) -> list[int]:
    """The process and all its descendants."""
    found = [process]
    for parent in found:  # grows meanwhile
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def memory_of(process: int) -> float:
    """MB of a process: its own memory and its share of what several processes have."""
    try:
        return kilobytes(Path(f"/proc/{process}/smaps_rollup").read_text(), "Pss") / 1000
    except (OSError, StopIteration):  # it has just ended
        return 0.0


def rate(curve: list[Sample]) -> float:
    return curve[-1].done / curve[-1].seconds


def growth(curve: list[Sample]) -> float:
    """Mean memory in the last quarter of the results ÷ that in the second."""
    total = curve[-1].done

    def mean(low: float, high: float) -> float:
        values = [each.memory for each in curve if low * total <= each.done < high * total] or [curve[-1].memory]
        return sum(values) / len(values)

    return mean(0.75, 1) / mean(0.25, 0.5)


def print_curve(label: str, curve: list[Sample]) -> None:
    total = curve[-1].done
    first = next(sample.seconds for sample in curve if sample.done)
    print(f"{label}: {total:,} rows in {curve[-1].seconds:.1f} s, the first after {first:.1f} s")
    print(f"  {'rows':>7} {'s':>7} {'MB':>7} {'processes':>9}")
    for step in range(1, 9):
        sample = next(sample for sample in curve if sample.done >= total * step / 8)
        print(f"  {sample.done:7,} {sample.seconds:7.1f} {sample.memory:7.1f} {sample.processes:9}")


def plain_rows(file: Path) -> list[tuple[str, list[float]]]:
    """Source and scores of each row, by source."""
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return sorted((row["source"], [each["score"] for each in row.get("detections", ())]) for row in rows)


def parquet_rows(folder: Path) -> list[tuple[str, list[float]]]:
    import pyarrow.parquet as pq

    rows = pq.read_table(folder, columns=["source", "scores"]).to_pylist()
    return sorted((row["source"], [round(score, 4) for score in row["scores"] or ()]) for row in rows)


if __name__ == "__main__":
    main()
