"""Winograd in an ONNX graph: wide 3×3 convolutions with a quarter of the multiplications, for CPUs.

F(4×4, 3×3) of `model.winograd`, in operations that every runtime has: tiles of 6×6 input pixels, 4 apart, are gathered
side by side, transformed by one matrix product, multiplied by the transformed filters, and transformed back. ONNX
Runtime and OpenVINO compute convolutions directly on CPUs; GPU libraries choose Winograd by themselves where it helps.

Notable choices:
- Both transforms are single products with a Kronecker square: more multiplications than row by row, but one pass over
  memory, which is what they cost.
- The file holds the filters as they were; the graph transforms them, and runtimes do that once, on loading.
- Channels come last between the transforms, so that everything that is moved is contiguous.
- F(6×6, 3×3) was measured too: no more than 2 % faster, for 180 MB more memory and twice the rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fcos_cli.model.optimize.winograd import FILTERINGS

if TYPE_CHECKING:
    import onnx

FORM = FILTERINGS[torch.float32]
M, N = FORM.outputs, FORM.outputs + 2
"""Outputs and inputs of a tile, per side."""

INPUTS, OUTPUTS = 96, 48
"""Fewest channels that gain. The input's transform, which is the dearer one, does not depend on the outputs."""

LEAST = 20 * 20 * 128
"""Cells of a map times its channels, below which what is saved is spent on transforms and on reading larger filters."""

Shapes = dict[str, tuple[int, ...]]


def use_winograd(proto: onnx.ModelProto, *, size: tuple[int, int]) -> int:
    """Rewrite the convolutions of `proto` that gain by it, in place; how many.

    size: (height, width) of a usual network input: convolutions of maps that are small then stay as they are. The graph
    takes any size as before, and answers the same but for the last digits: of the size of 256 channels' outputs, it
    errs by 2e-6 (directly: 4e-7).
    """
    graph = proto.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    strides = strides_of(graph)
    writer = _Writer(graph)
    count = 0
    for node in list(graph.node):
        stride = strides.get(node.output[0])
        cells = -(-size[0] // stride) * -(-size[1] // stride) if stride else 0
        if _is_wide(node, shapes) and cells * shapes[node.input[1]][1] >= LEAST:
            writer.convolution(node, *shapes[node.input[1]][:2])
            count += 1
        else:
            writer.nodes.append(node)
    del graph.node[:]
    graph.node.extend(writer.nodes)
    return count


def strides_of(graph: onnx.GraphProto) -> dict[str, int]:
    """Input pixels per cell of a pyramid's maps, by tensor; what comes from enlarged maps alone is left out."""
    strides = {graph.input[0].name: 1}
    for node in graph.node:
        known = [strides[name] for name in node.input if name in strides]
        if known and node.op_type not in ("Resize", "Shape"):
            step = _attributes(node).get("strides", [1])[0]
            strides.update(dict.fromkeys(node.output, known[0] * step))
    return strides


def _is_wide(node: onnx.NodeProto, shapes: Shapes) -> bool:
    """Is it a 3×3 convolution of stride 1 and padding 1 with constant filters, wide enough to gain?"""
    if node.op_type != "Conv" or len(shapes.get(node.input[1], ())) != 4:
        return False
    outputs, inputs, *kernel = shapes[node.input[1]]
    unsaid = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1, "auto_pad": b"NOTSET"}
    plain = {**unsaid, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    found = {**unsaid, "kernel_shape": kernel, **_attributes(node)}
    return found == plain and inputs >= INPUTS and outputs >= OUTPUTS


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


class _Taken(NamedTuple):
    """Tensors by name. tiles: Bᵀ d B of every tile of a map, [B, N², tiles, C]. size: (h, w) of the map. cells: where
    each of its cells lies in an answer [M², tiles], flattened, int64 [h·w]."""

    tiles: str
    size: str
    cells: str


class _Writer:
    """Builds the new list of nodes; constants go into the graph. What returns a str returns a tensor's name."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self._constants: set[str] = set()
        self._filters: dict[str, str] = {}
        self._taken: dict[str, _Taken] = {}

    def convolution(self, node: onnx.NodeProto, outputs: int, inputs: int) -> None:
        """[B, C, h, w] → [B, O, h, w] under the name that the convolution's output had."""
        x, weight, *bias = node.input
        if x not in self._taken:
            self._taken[x] = self._take(x, inputs)
        if weight not in self._filters:
            self._filters[weight] = self._transform(weight, outputs, inputs)
        taken = self._taken[x]
        products = self.op("MatMul", taken.tiles, self._filters[weight])  # [B, N², tiles, O]
        pixels = self.op("MatMul", self.square("a"), self.op("Reshape", products, self.ints(0, N * N, -1)))
        answer = self.op("Gather", self.op("Reshape", pixels, self.ints(0, -1, outputs)), taken.cells, axis=1)
        for one in bias:
            answer = self.op("Add", answer, one)
        shape = self.op("Concat", self.ints(0), taken.size, self.ints(outputs), axis=0)
        self.op("Transpose", self.op("Reshape", answer, shape), perm=[0, 3, 1, 2], name=node.output[0])

    def _take(self, x: str, channels: int) -> _Taken:
        """Cut a map [B, C, h, w], zeros around it, into tiles that cover it, and transform them."""
        size = self.op("Shape", x, start=2)
        tiles = self.op("Div", self.op("Add", size, self.ints(M - 1)), self.ints(M))
        height, width = (self.op("Gather", size, self.number(k)) for k in (0, 1))
        down, across = (self.op("Gather", tiles, self.number(k)) for k in (0, 1))
        padded = self.op("Pad", self.op("Transpose", x, perm=[0, 2, 3, 1]), self.ints(0, 1, 1, 0, 0, M, M, 0))
        flat = self.op("Reshape", padded, self.ints(0, -1, channels))
        gathered = self.op("Gather", flat, self._places(width, down, across), axis=1)  # [B, N², tiles, C]
        taken = self.op("MatMul", self.square("b"), self.op("Reshape", gathered, self.ints(0, N * N, -1)))
        taken = self.op("Reshape", taken, self.ints(0, N * N, -1, channels))
        return _Taken(taken, size, self._cells(height, width, down, across))

    def _places(self, width: str, down: str, across: str) -> str:
        """Where in the padded map, its rows one after another, each pixel of each tile lies: int64 [N², tiles]."""
        m, width = self.number(M), self.op("Add", width, self.number(M + 1))
        rows = self.op("Mul", width, m)
        below = self.op("Range", self.number(0), self.op("Mul", down, rows), rows)
        beside = self.op("Range", self.number(0), self.op("Mul", across, m), m)
        corners = self.op("Add", self.op("Unsqueeze", below, self.ints(1)), beside)  # [down, across]
        row, column = np.indices((N, N)).reshape(2, -1, 1)
        inside = self.op("Mul", self.constant("row", row), width)
        inside = self.op("Add", inside, self.constant("column", column))
        return self.op("Add", inside, self.op("Reshape", corners, self.ints(1, -1)))

    def _cells(self, height: str, width: str, down: str, across: str) -> str:
        """See `_Taken`: cell (y, x) is pixel (y mod M, x mod M) of tile (y div M, x div M)."""
        m, count = self.number(M), self.op("Mul", down, across)
        rows, columns = (self.op("Range", self.number(0), side, self.number(1)) for side in (height, width))
        row = self.op("Mul", self.op("Mod", rows, m), self.op("Mul", count, m))
        row = self.op("Add", row, self.op("Mul", self.op("Div", rows, m), across))
        column = self.op("Add", self.op("Mul", self.op("Mod", columns, m), count), self.op("Div", columns, m))
        return self.op("Reshape", self.op("Add", self.op("Unsqueeze", row, self.ints(1)), column), self.ints(-1))

    def _transform(self, weight: str, outputs: int, inputs: int) -> str:
        """G g Gᵀ of every filter, [N², C, O], computed from constants only."""
        flat = self.op("Transpose", weight, perm=[2, 3, 1, 0])
        flat = self.op("Reshape", flat, self.ints(9, inputs * outputs))
        return self.op("Reshape", self.op("MatMul", self.square("g"), flat), self.ints(N * N, inputs, outputs))

    def square(self, name: str) -> str:
        """A matrix of the filtering for both directions at once: its Kronecker product with itself."""
        matrix = getattr(FORM, name)
        return self.constant(name, np.kron(matrix, matrix).astype(np.float32))

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        place = f"winograd/{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name or place], name=place, **attributes))
        return name or place

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"winograd/{name}"
        if name not in self._constants:
            self.graph.initializer.append(numpy_helper.from_array(value, name))
            self._constants.add(name)
        return name

    def ints(self, *values: int) -> str:
        return self.constant(f"ints{list(values)}".replace(" ", ""), np.array(values, np.int64))

    def number(self, value: int) -> str:
        return self.constant(f"number{value}", np.array(value, np.int64))
