"""The outputs of mmdetection's own R-50 with deformable convolutions → mmdet-dcn.safetensors; its keys are checked.

python tests/vectors/make_mmdet_deformable.py FOLDER    (mmdet and mmcv as for make_mmdet.py; FOLDER: of the compiled
module `mdcn`, mmcv's csrc/pytorch/modulated_deform_conv.cpp and csrc/pytorch/cpu/modulated_deform_conv.cpp as they are)
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CONFIG = "fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco"


def stand_in(folder: str) -> None:
    """mmcv's compiled module: its deformable convolution, and names that are never called."""
    sys.path.insert(0, folder)
    importlib.import_module("torch")  # whose libraries it needs
    compiled = importlib.import_module("mdcn")
    module: Any = types.ModuleType("mmcv._ext")
    module.__getattr__ = lambda name: getattr(compiled, name, None)
    sys.modules["mmcv._ext"] = module


def main() -> None:
    stand_in(sys.argv[1])
    import mmcv
    import mmdet
    import mmengine
    import torch
    from deformable import PUBLISHED, keys
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from safetensors.torch import save_file
    from seeded import seeded_picture, seeded_state

    init_default_scope("mmdet")
    config = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs/fcos" / f"{CONFIG}.py")
    config.model.backbone.init_cfg = None
    network = MODELS.build(config.model).eval()
    names = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert names == keys(PUBLISHED[CONFIG]), sorted(set(names) ^ set(keys(PUBLISHED[CONFIG])))[:5]
    network.load_state_dict(seeded_state(names), strict=True)
    with torch.no_grad():
        levels = network(seeded_picture(64, 64), mode="tensor")
    cls, ltrb, ctr = (torch.cat([x.flatten(2) for x in part], 2)[0].T.contiguous() for part in levels)
    versions = {module.__name__: module.__version__ for module in (mmdet, mmcv, mmengine, torch)}
    about = {"config": f"{CONFIG}.py", "versions": versions, "picture": [64, 64], "classes": "every eighth of 80"}
    tensors = {"whole.cls": cls[:, ::8].contiguous(), "whole.ltrb": ltrb, "whole.ctr": ctr[:, 0].contiguous()}
    save_file(tensors, HERE / "mmdet-dcn.safetensors", metadata={"about": json.dumps(about)})


if __name__ == "__main__":
    main()
