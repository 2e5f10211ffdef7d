"""Run an exported detector without fcos: python examples/onnx_numpy.py MODEL.onnx PHOTO"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
rule = metadata["geometry"]
assert (rule["mode"], rule["filter"]) == ("letterbox", "pillow"), "this model resizes images by another rule"
height, width = rule["size"]  # letterbox: fit the image into it, pad right and bottom

photo = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
scale = min(height / photo.height, width / photo.width)
sides = [max(1, round(side * scale)) for side in photo.size]
small = photo.resize(sides, Image.Resampling.BILINEAR)
images = np.full((1, 3, height, width), np.reshape(rule["pad_value"], (-1, 1, 1)), np.uint8)
images[0, :, : small.height, : small.width] = np.asarray(small).transpose(2, 0, 1)

boxes, scores, classes, counts = session.run(None, {"images": images})[:4]
thresholds = metadata["thresholds"]["per_class"] or [metadata["thresholds"]["global"]] * len(metadata["classes"])
boxes = np.clip(boxes[0] / np.tile(np.divide(small.size, photo.size), 2), 0, np.tile(photo.size, 2))
for box, score, index in zip(boxes, scores[0], classes[0][: counts[0]], strict=False):
    if score >= thresholds[index]:
        print(metadata["classes"][index]["name"], f"{score:.2f}", box.round(1).tolist())
