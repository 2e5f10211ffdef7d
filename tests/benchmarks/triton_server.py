"""Serve a model repository with a real Triton server, compare its answers with ONNX Runtime's, and measure it.

    python -m venv triton && triton/bin/pip install nvidia-pytriton onnxruntime "numpy<2"    # with a server
    fcos export default --format triton --out models/
    python -m tests.benchmarks.triton_server models/ --model default --server triton [--clients 1,8,32]

Run it from the root of the repository, with the extra `triton`. That server has the Python backend only. A copy of the
repository therefore gets `triton_model.py`, which runs the model file, and `backend: "python"` in its config.pbtxt.
Everything else in the configuration is what `fcos export` wrote.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np

from examples.triton_client import TritonDetector
from fcos_cli.data.images import open_image
from fcos_cli.errors import ModelError
from fcos_cli.predict.sources.open import open_sources
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.detector import detect_batch
from fcos_cli.runtime.open import open_detector
from tests.benchmarks.load import print_load

HTTP, GRPC, METRICS = 18000, 18001, 18002
"""Ports on loopback."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("repository", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--server", type=Path, required=True, help="virtual environment with nvidia-pytriton")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--requests", type=int, default=200, help="per number of clients")
    parser.add_argument("--images", nargs="*", default=list(map(str, demo_photos())))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = with_python_backend(options.repository, Path(folder), options.model)
        file = max((repository / options.model).glob("*/model.onnx"), key=lambda path: int(path.parent.name))
        with serving(repository, options.server, Path(folder)):
            images = [open_image(path) for path in open_sources(options.images)]
            for grpc in (False, True):
                check(connect(options.model, grpc=grpc), file, images)
                print(f"\n{'gRPC' if grpc else 'HTTP'}, one picture per request, {len(images)} pictures in turn")
                counts = [int(count) for count in options.clients.split(",")]
                print_load(sender(options.model, images, grpc=grpc), clients=counts, requests=options.requests)
            print(f"\n{images_per_batch():.2f} pictures per batch in the mean")


def with_python_backend(repository: Path, folder: Path, model: str) -> Path:
    """Copy a model into a repository whose configuration names the Python backend."""
    copy = folder / "models"
    shutil.copytree(repository / model, copy / model)
    config = copy / model / "config.pbtxt"
    text = config.read_text(encoding="utf-8")
    for old, new in (('backend: "onnxruntime"', 'backend: "python"'), ('"model.onnx"', '"model.py"')):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    config.write_text(text, encoding="utf-8")
    for version in config.parent.glob("*/model.onnx"):
        shutil.copy(Path(__file__).with_name("triton_model.py"), version.with_name("model.py"))
    return copy


@contextmanager
def serving(repository: Path, environment: Path, folder: Path) -> Iterator[None]:
    """Run the server until the block ends. Raises RuntimeError with its log if it does not become ready."""
    (packages,) = environment.resolve().glob("lib/python3.*/site-packages")
    home = packages / "pytriton/tritonserver"
    backends = shutil.copytree(home / "backends", folder / "backends")
    version = packages.parent.name.removeprefix("python")
    shutil.copy(home / f"python_backend_stubs/{version}/triton_python_backend_stub", backends / "python")
    libraries = packages / "nvidia_pytriton.libs"
    path = f"{environment.resolve() / 'bin'}{os.pathsep}{os.environ['PATH']}"  # where the backend looks for Python
    variables = {**os.environ, "PATH": path, "LD_LIBRARY_PATH": str(libraries)}
    variables.pop("PYTHONPATH", None)
    ports = (f"--http-port={HTTP}", f"--grpc-port={GRPC}", f"--metrics-port={METRICS}")
    local = ("--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1")
    command = [home / "bin/tritonserver", f"--model-repository={repository}", f"--backend-directory={backends}"]
    log = folder / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen([*command, *ports, *local], env=variables, stdout=stream, stderr=stream)
        try:
            wait_until_ready(server, log)
            yield
        finally:
            server.terminate()
            server.wait(timeout=60)


def wait_until_ready(server: subprocess.Popen[bytes], log: Path) -> None:
    import tritonclient.http as triton

    client = triton.InferenceServerClient(f"localhost:{HTTP}")
    for _ in range(300):
        if server.poll() is not None:
            raise RuntimeError(f"the server ended:\n{log.read_text(errors='replace')}")
        try:
            if client.is_server_ready():
                return
        except OSError:
            pass
        time.sleep(1)
    raise RuntimeError(f"the server does not become ready:\n{log.read_text(errors='replace')}")


def connect(model: str, *, grpc: bool) -> TritonDetector:
    return TritonDetector(f"localhost:{GRPC if grpc else HTTP}", model, grpc=grpc)


def check(detector: TritonDetector, file: Path, images: list[np.ndarray]) -> None:
    """The same boxes, scores and classes as from the file in this process, alone and in a batch larger than allowed."""
    local = open_detector(file)
    rule = detector.facts.resize
    for group in (images[:1], (images * 9)[:11]):
        pixels, geometries = rule.batch(group)
        answers = (detect_batch(each, pixels, geometries) for each in (detector, local))
        for served, known in zip(*answers, strict=True):
            assert len(known) > 0
            np.testing.assert_array_equal(served.classes, known.classes)
            np.testing.assert_allclose(served.boxes, known.boxes, atol=0.05)
            np.testing.assert_allclose(served.scores, known.scores, atol=1e-4)
    try:
        connect("no-such-model", grpc=detector.client.__class__.__module__.startswith("tritonclient.grpc"))
    except ModelError as error:
        print(f"a missing model: {error.what}", file=sys.stderr)
    print(f"{detector.device}: the same detections as ONNX Runtime in this process")


def images_per_batch() -> float:
    """From the server's metrics: what its dynamic batching brought together."""
    with urlopen(f"http://localhost:{METRICS}/metrics") as answer:
        text = answer.read().decode()
    count, calls = (
        sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"nv_inference_{name}{{"))
        for name in ("count", "exec_count")
    )
    return count / calls


def sender(model: str, images: list[np.ndarray], *, grpc: bool) -> Callable[[], Callable[[], None]]:
    """Opens a connection of its own for each client, which sends the images in turn."""

    def connected() -> Callable[[], None]:
        detector = connect(model, grpc=grpc)
        batches = [detector.facts.resize.batch([image])[0] for image in images]
        position = iter(range(10**9))
        return lambda: check_answer(detector(batches[next(position) % len(batches)]))

    return connected


def check_answer(raw) -> None:
    assert raw.counts.shape == (1,)
    assert raw.counts[0] > 0


if __name__ == "__main__":
    main()
