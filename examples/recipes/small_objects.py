"""Draw a data set of small objects: shapes of 8 to 24 pixels in images of 640 pixels.

python examples/recipes/small_objects.py FOLDER
"""

import sys
from pathlib import Path

from fcos_cli.data.demo_shapes import Drawing, write_shapes

SIDE = 640

if __name__ == "__main__":
    drawing = Drawing(smallest=8 / SIDE, largest=24 / SIDE, most=20)
    write_shapes(Path(sys.argv[1]), train=160, val=40, size=SIDE, drawing=drawing)
