"""`model.py` for Triton's Python backend: runs the `model.onnx` beside it with ONNX Runtime.

For a Triton without the backend `onnxruntime`, such as that of nvidia-pytriton; see `triton_server.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, args: dict[str, Any]) -> None:
        file = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        config = json.loads(args["model_config"])
        self.inputs = [value["name"] for value in config["input"]]
        self.outputs = [value["name"] for value in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One network call for the requests that Triton's dynamic batching brought together; one response each."""
        given = [[backend.get_input_tensor_by_name(each, name).as_numpy() for name in self.inputs] for each in requests]
        feed = dict(zip(self.inputs, map(np.concatenate, zip(*given, strict=True)), strict=True))
        found = self.session.run(self.outputs, feed)
        ends = np.cumsum([len(arrays[0]) for arrays in given])[:-1]
        parts = zip(*(np.split(values, ends) for values in found), strict=True)
        return [
            backend.InferenceResponse([backend.Tensor(*pair) for pair in zip(self.outputs, values, strict=True)])
            for values in parts
        ]
