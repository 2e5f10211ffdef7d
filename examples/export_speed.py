"""Measure the speed of exported models, as ratios to torchvision's own FCOS with the same weights.

    python examples/export_speed.py                      # R50, 800 × 1066, batch 1, all available backends
    python examples/export_speed.py --rounds 10 --only onnx-fp32 openvino-int8

Needs fcos-cli with the extra `train`, and `openvino` for its rows. The weights are random, with small residual
branches, so that half precision is meaningful, and scores spread around the threshold. Speed does not depend on their
values. Each backend runs in its own process with its own threads and memory. The processes alternate, one measured call
each per round. The table shows median milliseconds and the median of the rounds' ratios. Before it, the throughput of
one large convolution on this machine is printed: it limits the speed of the network's 344 GFLOP, except for algorithms
that need fewer multiplications.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fcos_cli.errors import first_line

REFERENCE = "torchvision"
ROWS = {
    REFERENCE: "r50.safetensors",
    "pytorch-fp32": "r50.safetensors",
    "onnx-fp32": "r50.onnx",
    "onnx-fp32-direct": "r50-direct.onnx",
    "onnx-int8": "r50-int8.onnx",
    "openvino-fp32": "r50.xml",
    "openvino-fp32-direct": "r50-direct.xml",
    "openvino-bf16": "r50-direct.xml",
    "openvino-int8": "r50-int8.xml",
}
"""Model files by row. direct: without Winograd convolutions, which are the default in float32."""

CEILING = 256, 100, 136
"""Channels, height and width of the measured convolution: the largest feature map of the head."""


def make_image(height: int, width: int) -> np.ndarray:
    """Return a uint8 [1, 3, H, W] image that resembles a photo: smooth, with edges and a little noise."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (3, height // 32 + 1, width // 32 + 1))
    smooth = coarse.repeat(32, 1).repeat(32, 2)[:, :height, :width]
    return np.clip(smooth + generator.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)[None]


def padded(images: np.ndarray) -> np.ndarray:
    """Pad to multiples of 32 like torchvision's transform, so that both sides compute the same."""
    height, width = images.shape[-2:]
    return np.pad(images, ((0, 0), (0, 0), (0, -height % 32), (0, -width % 32)))


def make_weights(path: Path) -> None:
    """Save an R50 with torchvision's shapes and thresholds as an artifact."""
    import torch

    from fcos_cli.data.geometry import ResizeRule
    from fcos_cli.model.artifact import Artifact, save
    from fcos_cli.model.classes import ClassTable
    from fcos_cli.model.config import ModelConfig
    from fcos_cli.model.fcos import FCOS

    torch.manual_seed(0)
    imagenet = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375), "backbone_norm_eps": 1e-5}
    config = ModelConfig(backbone="resnet50", channels=256, convs=4, score_threshold=0.2, **imagenet)
    model = FCOS(config, classes=91)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bn3.weight"):
                parameter.fill_(0.1)
        for name, buffer in model.named_buffers():  # frozen BatchNorm keeps its weights as buffers
            if name.endswith("bn3.weight"):
                buffer.fill_(0.1)
        model.head.classification_head.cls_logits.weight.normal_(0, 0.03)
        model.head.classification_head.cls_logits.bias.fill_(-4.0)
    geometry = ResizeRule("shortest", (800, 1333)).to_json()
    save(path, Artifact(model.state_dict(), config, ClassTable.from_names(map(str, range(91))), geometry))


def make_files(folder: Path) -> None:
    """Create the weights and all exports unless they exist."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / ROWS[REFERENCE]
    if not weights.exists():
        make_weights(weights)
    for name in dict.fromkeys(ROWS.values()):
        if (folder / name).exists():
            continue
        try:
            make_file(weights, folder / name)
        except Exception as error:
            print(f"{name}: {error}", file=sys.stderr)


def make_file(weights: Path, path: Path) -> None:
    """Export like `fcos export`, but without the comparison with PyTorch, which takes 90 seconds per file."""
    from fcos_cli.export.job import ExportJob
    from fcos_cli.export.onnx import finalize, trace, write
    from fcos_cli.export.openvino import write_openvino
    from fcos_cli.export.options import make_options
    from fcos_cli.export.quantize import quantize
    from fcos_cli.export.run import export
    from fcos_cli.model.artifact import load
    from fcos_cli.runtime.graph_io import output_names
    from fcos_cli.runtime.pytorch import facts_of

    format_ = "onnx" if path.suffix == ".onnx" else "openvino"
    if "int8" not in path.stem:
        export(weights, ExportJob(make_options(format_, winograd="direct" not in path.stem), path, verify=False))
        return
    options, artifact = make_options(format_, precision="int8"), load(weights)
    facts = options.apply(facts_of(artifact))
    proto = trace(artifact, facts, options)
    proto = quantize(proto, [padded(make_image(480, 640))], target="cpu", between=format_ == "onnx")
    if format_ == "onnx":
        write(finalize(proto, outputs=output_names("op")), path, facts)
    else:
        graph = path.with_suffix(".onnx").with_stem(f"{path.stem}-openvino")
        write(finalize(proto, outputs=output_names("op")), graph, facts)
        write_openvino(graph, path, facts)


def runner(row: str, path: Path, threads: int) -> Callable[[], int]:
    """Return a function that detects objects in one image and returns the number of boxes."""
    from fcos_cli.allocator import keep_freed_memory

    keep_freed_memory()
    images = make_image(800, 1066)
    if row == REFERENCE:
        return torchvision_runner(path, images, threads)
    from fcos_cli.runtime.open import open_detector

    precision = "bf16" if row.endswith("bf16") else None
    if row.startswith("pytorch"):
        import torch

        torch.set_num_threads(threads)
    detector = open_detector(path, precision=precision, threads=threads, device="cpu")
    fixed = padded(images)
    return lambda: int(detector(fixed).counts[0])


def torchvision_runner(path: Path, images: np.ndarray, threads: int) -> Callable[[], int]:
    import torch
    from torchvision.models.detection import fcos_resnet50_fpn
    from torchvision.ops.misc import FrozenBatchNorm2d

    from fcos_cli.model.artifact import load

    torch.set_num_threads(threads)
    model = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91).eval()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm2d(child.num_features))
    model.load_state_dict(load(path).weights)
    pixels = torch.from_numpy(images[0]).float() / 255

    def call() -> int:
        with torch.inference_mode():
            return len(model([pixels])[0]["boxes"])

    return call


def ceilings(threads: int) -> None:
    """Print the GFLOP/s of a 3×3 convolution in PyTorch (float32, and bf16 if native) and in ONNX Runtime (int8)."""
    import torch

    from fcos_cli.hardware import has_native_bf16

    torch.set_num_threads(threads)
    channels, height, width = CEILING
    work = 2 * 9 * channels**2 * height * width
    types = [torch.float32, *([torch.bfloat16] if has_native_bf16(torch.device("cpu")) else [])]
    reached = {}
    with torch.inference_mode():
        for dtype in types:
            conv = torch.nn.Conv2d(channels, channels, 3, padding=1).to(dtype, memory_format=torch.channels_last)
            x = torch.randn(1, channels, height, width).to(dtype, memory_format=torch.channels_last)
            reached[str(dtype).removeprefix("torch.")] = work / median_seconds(lambda: conv(x))  # noqa: B023
    session, feed = int8_convolution(threads)
    reached["int8"] = work / median_seconds(lambda: session.run(None, feed))
    throughput = ", ".join(f"{value / 1e9:.0f} in {name}" for name, value in reached.items())
    print(f"one convolution ({channels} channels, {height} × {width}), GFLOP/s: {throughput}")


def median_seconds(call: Callable[[], object]) -> float:
    """Return the median time of 9 calls, after 3 warm-up calls."""
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[3:])


def int8_convolution(threads: int) -> tuple[Any, dict[str, np.ndarray]]:
    """Return an ONNX Runtime session with one quantized convolution, and its input."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    channels, height, width = CEILING
    rng = np.random.default_rng(0)
    constants = {
        "scale": np.array(0.02, np.float32),
        "zero": np.array(0, np.uint8),
        "weight": rng.integers(-127, 127, (channels, channels, 3, 3)).astype(np.int8),
        "signed": np.array(0, np.int8),
    }
    inputs = ["x", "scale", "zero", "weight", "scale", "signed", "scale", "zero"]
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", inputs, ["y"], pads=[1, 1, 1, 1])],
        "int8",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, channels, height, width])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, channels, height, width])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, {"x": rng.integers(0, 255, (1, channels, height, width)).astype(np.uint8)}


def worker(row: str, path: Path, threads: int) -> None:
    """Serve one backend: for each line on stdin, print the milliseconds of one call."""
    try:
        call = runner(row, path, threads)
        count = [call() for _ in range(2)][-1]
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {first_line(error)}"}), flush=True)
        return
    print(json.dumps({"count": count}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        call()
        print(json.dumps({"ms": 1e3 * (time.perf_counter() - start)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/export-speed"), help="folder for weights and exports")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), help="rows to measure besides the reference")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "prepare":
        make_files(options.folder)
        return
    if options.worker == "ceilings":
        ceilings(options.threads)
        return
    if options.worker:
        worker(options.worker, options.folder / ROWS[options.worker], options.threads)
        return
    subprocess.run(worker_command("prepare", options), check=True)  # in a process, to free its memory
    subprocess.run(worker_command("ceilings", options), check=True)
    rows = [REFERENCE, *(options.only or [row for row in ROWS if row != REFERENCE])]
    measure(rows, options)


def worker_command(row: str, options: argparse.Namespace) -> list[str]:
    arguments = ["--folder", str(options.folder), "--threads", str(options.threads)]
    return [sys.executable, __file__, "--worker", row, *arguments]


def measure(rows: list[str], options: argparse.Namespace) -> None:
    """Start the workers, let them alternate and print the table."""
    workers: dict[str, subprocess.Popen[str]] = {}
    counts = {}
    for row in rows:
        command = worker_command(row, options)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ready = json.loads(process.stdout.readline() or '{"error": "the process ended"}')
        if "error" in ready:
            print(f"{row}: not measured ({ready['error']})", file=sys.stderr)
            continue
        workers[row], counts[row] = process, ready["count"]
    if REFERENCE not in workers:
        sys.exit("the others are measured relative to torchvision")
    times: dict[str, list[float]] = {row: [] for row in workers}
    for _ in range(options.rounds):
        for row, process in workers.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            times[row].append(json.loads(process.stdout.readline())["ms"])
    for process in workers.values():
        process.stdin.close()
    print(f"R50, 91 classes, 800 × 1066, batch 1, {options.threads} threads, {options.rounds} alternating rounds")
    print(f"{'':20} {'median ms':>9} {'ratio':>6} {'boxes':>6}")
    for row, row_times in times.items():
        ratios = [reference / time_ for reference, time_ in zip(times[REFERENCE], row_times, strict=True)]
        print(f"{row:20} {statistics.median(row_times):9.0f} {statistics.median(ratios):6.2f} {counts[row]:6}")


if __name__ == "__main__":
    main()
