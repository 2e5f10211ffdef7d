"""Export a trained detector in the forms that run on a CPU, verify and time them, and print a table of such detectors.

    python examples/recipes/networks.py run RESULTS.jsonl --network NAME --data DATA RUN
    python examples/recipes/networks.py table RESULTS.jsonl

`run` needs an idle machine. It takes the run folder RUN, adds one line to RESULTS.jsonl, and keeps the exported files
in RUN/networks. The val images of DATA are those that RUN was validated on. Times are with one thread, batch 1, from a
JPEG file of 512 × 512 to boxes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

PHOTO = Path(__file__).resolve().parents[1] / "photos" / "astronaut.jpg"

FILES = {
    "onnxruntime fp32": ("fp32.onnx", []),
    "onnxruntime int8": ("int8.onnx", ["--precision", "int8"]),
    "openvino fp32": ("fp32.xml", ["--format", "openvino", "--batch", "1"]),
    "openvino int8": ("int8.xml", ["--format", "openvino", "--batch", "1", "--precision", "int8"]),
}
"""File name and options of each exported form."""

IMAGES = 600
"""Val images at most on which the exported files are compared with PyTorch."""


def fcos(*arguments: str | Path) -> str:
    """What a command prints on stdout."""
    command = [sys.executable, "-m", "fcos_cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def measure(network: str, data: Path, run: Path) -> dict[str, Any]:
    """Return the line of RESULTS.jsonl."""
    height, width = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))["data"]["size"]
    folder = run / "networks"
    folder.mkdir(exist_ok=True)
    files = {}
    for form, (name, options) in FILES.items():
        fixed = ["--size", f"{height}x{width}"] if name.endswith(".xml") else []
        fcos("export", run, "--out", folder / name, "--data", data, "--limit", str(IMAGES), *options, *fixed)
        files[form] = {"file": name, **proof_of(folder / name)}
    paths = [folder / file["file"] for file in files.values()]
    bench = json.loads(fcos("bench", *paths, "--threads", "1", "--images", PHOTO, "--json"))
    for file, row in zip(files.values(), bench["rows"], strict=True):
        file.update({"ms": round(row["p50_ms"], 1), "mb": round(row["size_mb"], 1)})
    return {
        "network": network,
        "data": data.name,
        "size": [height, width],
        **result_of(run),
        "files": files,
        "environment": bench["environment"],
    }


def proof_of(path: Path) -> dict[str, Any]:
    """What the comparison with PyTorch found: boxes of the end-to-end test, and the difference in AP."""
    name = path.stem if path.suffix == ".onnx" else path.name
    report = json.loads((path.parent / f"{name}.parity.json").read_text(encoding="utf-8"))
    pictures = report["end_to_end"]["pictures"]
    return {
        "passed": report["passed"],
        "boxes": sum(picture["reference"] for picture in pictures),
        "matched": sum(picture["matched"] for picture in pictures),
        "AP_difference": round(report["ap"]["difference"], 4),
    }


def result_of(run: Path) -> dict[str, Any]:
    """The best validation of a run, and how long the run took."""
    from fcos_cli.train.checkpoint import read_progress

    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    best = max((row for row in map(json.loads, lines) if row["kind"] == "val"), key=lambda row: row["AP"])
    progress = read_progress(run)
    return {
        "AP": round(best["AP"], 4),
        "AP50": round(best["AP50"], 4),
        "best_step": best["step"],
        "steps": progress.step,
        "minutes": round(progress.seconds / 60, 1),
    }


def table(results: Path) -> str:
    """Markdown. Of several lines of a network and data set, the last one counts."""
    rows = {(row["data"], row["network"]): row for row in map(json.loads, results.read_text("utf-8").splitlines())}
    lines = [
        "| data | network | AP | AP50 | training | file | ONNX Runtime fp32, int8 | OpenVINO fp32, int8 "
        "| fp32 boxes as in PyTorch | int8: change of AP |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows.values():
        ort, ort_int8, openvino, openvino_int8 = (row["files"][form] for form in FILES)
        matched = " and ".join(f"{file['matched']:,} of {file['boxes']:,}" for file in (ort, openvino))
        lines.append(
            f"| {row['data']} | `{row['network']}`, {row['size'][0]} × {row['size'][1]} | {row['AP']:.3f} "
            f"| {row['AP50']:.3f} | {row['minutes']:.0f} min | {ort['mb']} MB, {ort_int8['mb']} MB "
            f"| {ort['ms']} ms, {ort_int8['ms']} ms | {openvino['ms']} ms, {openvino_int8['ms']} ms "
            f"| {matched} | {ort_int8['AP_difference']:+.3f}, {openvino_int8['AP_difference']:+.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("results", type=Path)
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN")
    parser.add_argument("--network")
    parser.add_argument("--data", type=Path)
    options = parser.parse_intermixed_args()
    if options.action == "table":
        print(table(options.results))
    elif options.run and options.network and options.data:
        line = json.dumps(measure(options.network, options.data, options.run))
        with options.results.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line)
    else:
        parser.error("run needs --network, --data and the run folder")


if __name__ == "__main__":
    main()
