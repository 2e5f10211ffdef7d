"""Train the variants of a recipe on the same data with several seeds, and print a table of what each brings.

    python examples/recipes/compare.py run FILE.toml RESULTS.jsonl [--runs FOLDER]
    python examples/recipes/compare.py table FILE.toml RESULTS.jsonl

FILE.toml has `seeds`, the settings `[shared]` by all runs, a table `[data.NAME]` for each data set (`path`, and
settings of its runs), and a table `[variants.NAME]` for each variant: the settings in which it differs, `network` (what
to give as `--model`) and `only` (a list of data sets, if it is not for all). The first variant is what the others are
compared with. A run that is in RESULTS.jsonl is not repeated, so that an interrupted series can be continued; if a run
itself was interrupted, remove its folder first. Several processes may share a series. The detector is measured once,
after the last step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One training run of a series."""

    data: str
    path: Path
    variant: str
    seed: int
    settings: list[str]
    network: str | None = None

    @property
    def name(self) -> str:
        """A folder name."""
        return f"{self.data}-{self.variant}-{self.seed}".replace(" ", "_").replace("/", "_")


def jobs(file: Path) -> Iterator[Job]:
    """The runs of a series, one seed after the other."""
    series = tomllib.loads(file.read_text(encoding="utf-8"))
    for seed in range(series["seeds"]):
        for variant, changed in series["variants"].items():
            for name, shared in series["data"].items():
                if name in changed.get("only", [name]):
                    merged = {**series["shared"], **shared, **changed}
                    merged.pop("only", None)
                    path, network = Path(merged.pop("path")), merged.pop("network", None)
                    settings = [f"{key}={json.dumps(value)}" for key, value in merged.items()]
                    yield Job(name, path, variant, seed, settings, network)


def finished(results: Path) -> list[dict[str, Any]]:
    """Rows of the runs that are done."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    return [json.loads(line) for line in lines]


def run(job: Job, folder: Path) -> dict[str, Any]:
    """Train, and return the result's row."""
    command = [sys.executable, "-m", "fcos_cli", "train", str(job.path), "--out", str(folder), "--seed", str(job.seed)]
    for setting in ["train.val_every=100000", "train.tracker=none", "train.export=false", *job.settings]:
        command += ["--set", setting]
    if job.network:
        command += ["--model", job.network]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    val = [row for row in rows if row["kind"] == "val"][-1]
    return {
        "data": job.data,
        "variant": job.variant,
        "seed": job.seed,
        "settings": job.settings,
        "steps": val["step"],
        "minutes": round((time.monotonic() - started) / 60, 1),
        **{key: round(val[key], 4) for key in ("AP", "AP50", "AP75")},
    }


def run_all(file: Path, results: Path, runs: Path) -> None:
    """Do all runs that no other process has begun. A run is claimed by making its folder."""
    for job in jobs(file):
        done = {(row["data"], row["variant"], row["seed"]) for row in finished(results)}
        folder = runs / job.name
        if (job.data, job.variant, job.seed) in done:
            continue
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            print(f"{folder}: begun by another process, or interrupted; to repeat it, remove it", file=sys.stderr)
            continue
        row = run(job, folder)
        with results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def table(file: Path, results: Path) -> str:
    """Markdown: AP and AP50 of each variant (mean ± standard deviation over the seeds), and the gain over the first."""
    series = tomllib.loads(file.read_text(encoding="utf-8"))
    lines = ["| data | variant | settings | runs | steps | AP | AP50 | gain |", "|---|---|---|---|---|---|---|---|"]
    rows = finished(results)
    for data in series["data"]:
        baseline = next(iter(series["variants"]))
        first = {row["seed"]: row["AP"] for row in rows if (row["data"], row["variant"]) == (data, baseline)}
        for variant, settings in series["variants"].items():
            found = [row for row in rows if (row["data"], row["variant"]) == (data, variant)]
            if not found:
                continue
            values = {row["seed"]: row["AP"] for row in found}
            gains = [values[seed] - first[seed] for seed in values if seed in first]
            text = " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items() if key != "only")
            lines.append(
                f"| {data} | {variant} | `{text}` | {len(found)} | {found[0]['steps']} "
                f"| {spread([row['AP'] for row in found])} | {spread([row['AP50'] for row in found])} "
                f"| {f'{statistics.mean(gains):+.3f}' if gains else ''} |"
            )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """`0.585 ± 0.004`."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("file", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/recipes"))
    options = parser.parse_args()
    if options.action == "run":
        run_all(options.file, options.results, options.runs)
    else:
        print(table(options.file, options.results))


if __name__ == "__main__":
    main()
