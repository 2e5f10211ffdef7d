"""What a network learns in a given time, against torchvision's FCOS class.

    python -m tests.benchmarks.learning DATA [--time 30m] [--seeds 3] [--out runs/learning]

For each seed: `fcos train DATA --time TIME --init offline` with no other setting, and torchvision's class for the same
time, with the same backbone weights, frozen stages, channels, towers, batch and input size, in mixed precision and
channels last. It is trained as torchvision's reference script does (SGD with momentum, linear warm-up, two steps down,
horizontal flips, frozen BatchNorm); its learning rate is the best of three, chosen with the first seed. Both are scored
on val by the same code, after the last step. Runs that are in OUT/results.jsonl are not repeated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD

from fcos_cli.allocator import keep_freed_memory
from fcos_cli.config import Config, resolve, with_values
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.images import open_image
from fcos_cli.data.samples import Dataset
from fcos_cli.evaluate.coco import score
from fcos_cli.model.backbone import load_offline_weights
from fcos_cli.runtime.results import Detections
from fcos_cli.train.batches import BatchStream
from fcos_cli.train.optim import choose_precision
from fcos_cli.train.run import open_run
from fcos_cli.train.speed.freezing import freeze_stages
from fcos_cli.train.start import parse_duration
from tests.benchmarks.torchvision_fcos import losses_of, torchvision_fcos

RATES = (0.005, 0.01, 0.02)
"""Learning rates for a batch of 8, from torchvision's reference up (0.01 for 16): runs are short."""

PLAIN = {
    **{f"augment.{name}": 0.0 for name in ("turn", "crop", "zoom_out", "colour", "mosaic")},
    "augment.scale": (1.0, 1.0),
    "model.backbone_norm": "frozen",
    "train.repeat": 0.0,
    "train.tune": False,
}
"""Settings of torchvision's run that differ from ours."""

WARMUP_STEPS = 100


def train_ours(options: argparse.Namespace, seed: int) -> tuple[dict[str, float], Path]:
    """`fcos train`: metrics of the last validation, and the run folder."""
    folder = options.out / f"{options.data.name}-fcos-{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # left by a benchmark that was interrupted
    command = [sys.executable, "-m", "fcos_cli", "train", str(options.data), "--time", options.time, "--no-export"]
    subprocess.run([*command, "--init", "offline", "--seed", str(seed), "--out", str(folder)], check=True)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["kind"] == "val"][-1], folder


def train_torchvision(options: argparse.Namespace, run_folder: Path, *, rate: float, seed: int) -> dict[str, float]:
    """torchvision's class, with the model settings and input size of our run in `run_folder`."""
    started, limit = time.monotonic(), parse_duration(options.time)
    ours, _ = resolve(file=run_folder / "config.toml", environ={})
    config = with_values(ours, {**PLAIN, "train.seed": seed})
    train_set, val_set = (read_dataset(options.data, split=split) for split in ("train", "val"))
    torch.manual_seed(seed)
    model = torchvision_fcos(config, len(train_set.classes))
    load_offline_weights(model.backbone.backbone, config.model)
    freeze_stages(model.backbone, config.train.freeze)
    model.to(memory_format=torch.channels_last)
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], lr=rate, momentum=0.9, weight_decay=1e-4)
    validation = _validation_seconds(model, val_set, config)
    with open_run(config, train_set, val_set, options.out / "scratch") as run:
        stream, step, epoch = BatchStream(run), 0, 0
        dtype = choose_precision(config.train, torch.device("cpu")).dtype
        while (done := (time.monotonic() - started) / (limit - validation)) < 1:
            batches = stream.epoch(epoch)
            for _, batch in batches:
                factor = 1.0 if done < 16 / 26 else 0.1 if done < 22 / 26 else 0.01  # as in 26 epochs
                optimizer.param_groups[0]["lr"] = rate * factor * min(1.0, (step + 1) / WARMUP_STEPS)
                with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                    total = losses_of(model, batch)
                optimizer.zero_grad(set_to_none=True)
                total.backward()
                optimizer.step()
                step += 1
                done = (time.monotonic() - started) / (limit - validation)
                if done >= 1:
                    break
            epoch += 1
    return {"step": step, **score(detect(model, val_set, config), val_set.samples, val_set.classes).metrics}


def _validation_seconds(model: torch.nn.Module, val_set: Dataset, config: Config) -> float:
    few = val_set.samples[:8]
    started = time.monotonic()
    detect(model, replace(val_set, samples=few), config)
    model.train()
    return (time.monotonic() - started) * len(val_set) / max(1, len(few))


@torch.inference_mode()
def detect(model: torch.nn.Module, dataset: Dataset, config: Config) -> list[Detections]:
    """Detections of torchvision's class in every image, resized as ours are."""
    rule = ResizeRule(mode=config.data.resize, size=config.data.size)
    model.eval()
    found = []
    for sample in dataset.samples:
        pixels, (geometry,) = rule.batch([open_image(sample.image)])
        image = torch.from_numpy(pixels)[0]
        image = image if image.shape[0] == 3 else image.permute(2, 0, 1)
        result: dict[str, Tensor] = model([image.float() / 255])[0]
        boxes = geometry.inverse(result["boxes"].numpy().astype(np.float32))
        found.append(Detections(boxes, result["scores"].numpy().astype(np.float32), result["labels"].numpy()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--time", default="30m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    options = parser.parse_args()
    keep_freed_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []

    def known(name: str, seed: int) -> dict[str, Any] | None:
        wanted = {"data": str(options.data), "time": options.time, "name": name, "seed": seed}
        return next((row for row in rows if wanted.items() <= row.items()), None)

    def note(name: str, seed: int, metrics: dict[str, float]) -> None:
        row = {"data": str(options.data), "time": options.time, "name": name, "seed": seed}
        rows.append(row | {key: metrics[key] for key in ("step", "AP", "AP50")})
        with results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(rows[-1]) + "\n")

    def torchvision(rate: float, seed: int) -> dict[str, Any]:
        name, folder = f"torchvision lr {rate:g}", options.out / f"{options.data.name}-fcos-{seed}"
        if known(name, seed) is None:
            note(name, seed, train_torchvision(options, folder, rate=rate, seed=seed))
        return known(name, seed) or {}

    best = RATES[0]
    for seed in range(options.seeds):
        if known("fcos", seed) is None:
            note("fcos", seed, train_ours(options, seed)[0])
        if seed == 0:
            best = max(RATES, key=lambda rate: torchvision(rate, 0)["AP"])
        torchvision(best, seed)
    mine = [row for row in rows if (row["data"], row["time"]) == (str(options.data), options.time)]
    show(mine, ["fcos", f"torchvision lr {best:g}"])


def show(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Mean and standard deviation of AP and AP50 over the seeds, and the lead in AP."""
    means, spreads = [], []
    for name in names:
        found = [row for row in rows if row["name"] == name]
        for metric in ("AP", "AP50"):
            values = [row[metric] for row in found]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"{name:22} {metric:5} {statistics.mean(values):.3f} ± {deviation:.3f} ({len(values)} seeds)")
            if metric == "AP":
                means.append(statistics.mean(values))
                spreads.append(deviation)
    print(f"lead: {means[0] - means[1]:+.3f} AP; twice the larger spread is {2 * max(spreads):.3f}")


if __name__ == "__main__":
    main()
