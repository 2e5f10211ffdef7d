"""Winograd convolution in an ONNX graph: wide 3×3 convolutions with a quarter of the multiplications, for CPUs.

F(4×4, 3×3) of `model.optimize.winograd`, in operations that every runtime supports: tiles of 6×6 input pixels, 4 apart,
are gathered, transformed by one matrix product, multiplied by the transformed filters, and transformed back. ONNX
Runtime and OpenVINO use direct convolution on CPUs; GPU libraries choose Winograd themselves if it is faster.

Notable choices:
- Both transforms are single products with a Kronecker square. That takes more multiplications than transforming rows
  and columns in turn, but one pass over memory instead of two, and the transforms are memory-bound.
- The file stores the original filters; the graph transforms them, and runtimes fold that into constants on loading.
- Channels come last between the transforms, so that every copy is contiguous.
- F(6×6, 3×3) was at most 2 % faster, needed 180 MB more memory, and had twice the rounding error.
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
"""Output and input pixels of a tile, per side."""

MIN_INPUTS, MIN_OUTPUTS = 96, 48
"""Fewest input and output channels for a speedup. The input transform, the more expensive one, is independent of the
number of outputs."""

MIN_WORK = 20 * 20 * 128
"""Smallest feature map, in cells times channels, for a speedup. Below this, the transforms and the larger filters cost
more than the saved multiplications."""

Shapes = dict[str, tuple[int, ...]]


def use_winograd(proto: onnx.ModelProto, *, size: tuple[int, int]) -> int:
    """Replace the convolutions of `proto` that get faster by Winograd's algorithm, in place; return their number.

    size: typical network input (height, width); convolutions on feature maps that are then too small stay as they are.
    The graph still takes any size, and its outputs are the same up to rounding: with 256 channels the relative error is
    2e-6, compared with 4e-7 for direct convolution.
    """
    graph = proto.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    strides = strides_of(graph)
    rewriter = _Rewriter(graph)
    count = 0
    for node in list(graph.node):
        stride = strides.get(node.output[0])
        cells = -(-size[0] // stride) * -(-size[1] // stride) if stride else 0
        if _is_suitable(node, shapes) and cells * shapes[node.input[1]][1] >= MIN_WORK:
            rewriter.convolution(node, *shapes[node.input[1]][:2])
            count += 1
        else:
            rewriter.nodes.append(node)
    del graph.node[:]
    graph.node.extend(rewriter.nodes)
    return count


def strides_of(graph: onnx.GraphProto) -> dict[str, int]:
    """Input pixels per feature map cell, by tensor. Tensors computed only from upsampled maps are left out."""
    strides = {graph.input[0].name: 1}
    for node in graph.node:
        inputs = [strides[name] for name in node.input if name in strides]
        if inputs and node.op_type not in ("Resize", "Shape"):
            stride = _attributes(node).get("strides", [1])[0]
            strides.update(dict.fromkeys(node.output, inputs[0] * stride))
    return strides


def _is_suitable(node: onnx.NodeProto, shapes: Shapes) -> bool:
    """Whether this is a 3×3 convolution of stride 1 and padding 1 with constant filters and enough channels."""
    if node.op_type != "Conv" or len(shapes.get(node.input[1], ())) != 4:
        return False
    outputs, inputs, *kernel = shapes[node.input[1]]
    defaults = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1, "auto_pad": b"NOTSET"}
    supported = {**defaults, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    actual = {**defaults, "kernel_shape": kernel, **_attributes(node)}
    return actual == supported and inputs >= MIN_INPUTS and outputs >= MIN_OUTPUTS


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


class _TiledMap(NamedTuple):
    """A feature map in tiles, as tensor names.

    tiles: Bᵀ d B of every tile, [B, N², tiles, C]. size: (h, w) of the map. cells: index of each cell in a result [M²,
    tiles], flattened, int64 [h·w].
    """

    tiles: str
    size: str
    cells: str


class _Rewriter:
    """Builds the new list of nodes; constants are added to the graph.

    Methods that return a str return a tensor name.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self._constants: set[str] = set()
        self._filters: dict[str, str] = {}
        self._tiled: dict[str, _TiledMap] = {}

    def convolution(self, node: onnx.NodeProto, outputs: int, inputs: int) -> None:
        """[B, C, h, w] → [B, O, h, w], under the original output name."""
        x, weight, *bias = node.input
        if x not in self._tiled:
            self._tiled[x] = self._tile(x, inputs)
        if weight not in self._filters:
            self._filters[weight] = self._transform(weight, outputs, inputs)
        tiled = self._tiled[x]
        products = self.op("MatMul", tiled.tiles, self._filters[weight])  # [B, N², tiles, O]
        pixels = self.op("MatMul", self.square("a"), self.op("Reshape", products, self.ints(0, N * N, -1)))
        output = self.op("Gather", self.op("Reshape", pixels, self.ints(0, -1, outputs)), tiled.cells, axis=1)
        for name in bias:
            output = self.op("Add", output, name)
        shape = self.op("Concat", self.ints(0), tiled.size, self.ints(outputs), axis=0)
        self.op("Transpose", self.op("Reshape", output, shape), perm=[0, 3, 1, 2], name=node.output[0])

    def _tile(self, x: str, channels: int) -> _TiledMap:
        """Pad a map [B, C, h, w] with zeros, cut it into overlapping tiles, and transform them."""
        size = self.op("Shape", x, start=2)
        tiles = self.op("Div", self.op("Add", size, self.ints(M - 1)), self.ints(M))
        height, width = (self.op("Gather", size, self.number(k)) for k in (0, 1))
        down, across = (self.op("Gather", tiles, self.number(k)) for k in (0, 1))
        padded = self.op("Pad", self.op("Transpose", x, perm=[0, 2, 3, 1]), self.ints(0, 1, 1, 0, 0, M, M, 0))
        flat = self.op("Reshape", padded, self.ints(0, -1, channels))
        gathered = self.op("Gather", flat, self._pixel_indices(width, down, across), axis=1)  # [B, N², tiles, C]
        transformed = self.op("MatMul", self.square("b"), self.op("Reshape", gathered, self.ints(0, N * N, -1)))
        transformed = self.op("Reshape", transformed, self.ints(0, N * N, -1, channels))
        return _TiledMap(transformed, size, self._cell_indices(height, width, down, across))

    def _pixel_indices(self, width: str, down: str, across: str) -> str:
        """Index of each pixel of each tile in the flattened padded map: int64 [N², tiles]."""
        m, width = self.number(M), self.op("Add", width, self.number(M + 1))
        rows = self.op("Mul", width, m)
        top = self.op("Range", self.number(0), self.op("Mul", down, rows), rows)
        left = self.op("Range", self.number(0), self.op("Mul", across, m), m)
        corners = self.op("Add", self.op("Unsqueeze", top, self.ints(1)), left)  # [down, across]
        row, column = np.indices((N, N)).reshape(2, -1, 1)
        offsets = self.op("Mul", self.constant("row", row), width)
        offsets = self.op("Add", offsets, self.constant("column", column))
        return self.op("Add", offsets, self.op("Reshape", corners, self.ints(1, -1)))

    def _cell_indices(self, height: str, width: str, down: str, across: str) -> str:
        """`_TiledMap.cells`: cell (y, x) is pixel (y mod M, x mod M) of tile (y div M, x div M)."""
        m, count = self.number(M), self.op("Mul", down, across)
        rows, columns = (self.op("Range", self.number(0), side, self.number(1)) for side in (height, width))
        row = self.op("Mul", self.op("Mod", rows, m), self.op("Mul", count, m))
        row = self.op("Add", row, self.op("Mul", self.op("Div", rows, m), across))
        column = self.op("Add", self.op("Mul", self.op("Mod", columns, m), count), self.op("Div", columns, m))
        return self.op("Reshape", self.op("Add", self.op("Unsqueeze", row, self.ints(1)), column), self.ints(-1))

    def _transform(self, weight: str, outputs: int, inputs: int) -> str:
        """G g Gᵀ of every filter, [N², C, O]. Depends on constants only."""
        flat = self.op("Transpose", weight, perm=[2, 3, 1, 0])
        flat = self.op("Reshape", flat, self.ints(9, inputs * outputs))
        return self.op("Reshape", self.op("MatMul", self.square("g"), flat), self.ints(N * N, inputs, outputs))

    def square(self, name: str) -> str:
        """The Kronecker product of a transform matrix with itself, which transforms both directions at once."""
        matrix = getattr(FORM, name)
        return self.constant(name, np.kron(matrix, matrix).astype(np.float32))

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        node_name = f"winograd/{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name or node_name], name=node_name, **attributes))
        return name or node_name

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
