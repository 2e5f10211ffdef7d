"""Detect objects with a model that NVIDIA's Triton Inference Server serves, over HTTP or gRPC.

    pip install "fcos-cli[triton]"
    fcos export default --format triton --out models/
    tritonserver --model-repository=models
    python examples/triton_client.py photo.jpg --model default
    python examples/triton_client.py photo.jpg --model default --grpc --url localhost:8001

Pictures are opened and resized as `fcos predict` does, boxes are in pixels of the picture, and the output is that of
`fcos predict --jsonl`. Classes, resize rule and thresholds come from the server: they are a parameter of the model's
configuration.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fcos_cli.errors import FcosError, ModelError
from fcos_cli.predict.pipeline import Failure, predict
from fcos_cli.predict.selection import report_thresholds
from fcos_cli.predict.sources.open import open_sources
from fcos_cli.predict.writers import open_writer
from fcos_cli.runtime.exported import InputLimits, check_score, run_in_batches
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import CONVERGED, INPUT, OUTPUTS, SIZES


class TritonDetector:
    """A detector whose network runs on a server. url: `host:port`, for gRPC if `grpc`, else for HTTP.

    Raises ModelError if the server cannot be reached, or if `fcos export` did not write the model.
    """

    backend, precision = "triton", "fp32"

    def __init__(self, url: str, name: str, *, grpc: bool) -> None:
        if grpc:
            import tritonclient.grpc as triton
        else:
            import tritonclient.http as triton
        self.triton, self.name, self.device = triton, name, url
        self.client = triton.InferenceServerClient(url)
        config = self._config(grpc=grpc)
        text = config.get("parameters", {}).get("fcos", {}).get("string_value")
        if text is None:
            raise ModelError("the model has no parameter `fcos`: fcos export did not write it", where=f"{url} {name}")
        self.facts = Facts.from_metadata(json.loads(text), where=Path(name))
        batch, _, height, width = self._shape(config)
        self.limits = InputLimits(batch or 1, batch or int(config["max_batch_size"]), height, width)
        self.types = {value["name"]: value["data_type"].removeprefix("TYPE_") for value in config["input"]}
        self.outputs = [*OUTPUTS, *(value["name"] for value in config["output"] if value["name"] == CONVERGED)]

    def __call__(self, images: np.ndarray, sizes: np.ndarray | None = None) -> Any:
        return run_in_batches(images, sizes, self._run, limits=self.limits, score=None, where=Path(self.name))

    def _config(self, *, grpc: bool) -> dict[str, Any]:
        try:
            answer = self.client.get_model_config(self.name, **({"as_json": True} if grpc else {}))
        except Exception as error:  # from the client, gRPC or the socket
            what = f"the server does not describe the model ({error})"
            raise ModelError(what, where=f"{self.device} {self.name}", remedy="check --url and --model") from error
        return answer["config"] if grpc else answer

    @staticmethod
    def _shape(config: dict[str, Any]) -> list[int | None]:
        """Batch, channels, height and width of the images; None = dynamic."""
        (dims,) = (value["dims"] for value in config["input"] if value["name"] == INPUT)
        sides = [None if int(side) < 0 else int(side) for side in dims]
        return sides if len(sides) == 4 else [None, *sides]

    def _run(self, given: Any) -> dict[str, np.ndarray]:
        inputs = []
        for name in (INPUT, SIZES):
            if name in self.types:
                value = self.triton.InferInput(name, given[name].shape, self.types[name])
                value.set_data_from_numpy(given[name])
                inputs.append(value)
        try:
            wanted = [self.triton.InferRequestedOutput(name) for name in self.outputs]
            answer = self.client.infer(self.name, inputs, outputs=wanted)
        except Exception as error:  # from the client, gRPC or the socket
            raise FcosError(f"the server did not answer ({error})", where=f"{self.device} {self.name}") from error
        found = {name: answer.as_numpy(name) for name in self.outputs}
        return {**found, "counts": found["counts"].reshape(-1)}  # Triton has no scalars: [batch, 1]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+", help="as those of fcos predict")
    parser.add_argument("--model", default="default", help="its name in the repository")
    parser.add_argument("--url", default="localhost:8000", help="host:port; the port of gRPC is usually 8001")
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--score", type=float, help="lowest score; default: the model's thresholds")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    if options.score is not None and not 0 <= options.score <= 1:
        parser.error("--score must be between 0 and 1")
    failed = 0
    try:
        detector = TritonDetector(options.url, options.model, grpc=options.grpc)
        check_score(options.score, detector.facts, Path(options.model))
        limits = report_thresholds(detector.facts, score=options.score, chosen=None)
        shared = {"classes": detector.facts.classes, "model": detector.name}
        with open_writer(sys.stdout, format="jsonl", **shared) as writer:
            for result in predict(detector, open_sources(options.sources), batch=options.batch, threshold=limits):
                writer.write(result)
                failed += isinstance(result, Failure)
    except FcosError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
