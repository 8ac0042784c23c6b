"""Import a torchvision built for CUDA together with a PyTorch for the CPU, for tests and scripts that need deepinv.

Some package indexes only have torchvision for CUDA. Its compiled operators do not load with a PyTorch for the CPU, and
its Python code cannot be imported without two of them. This module declares these two operators without an
implementation: deepinv uses torchvision only for reading and arranging images. Users should install the build that
matches their PyTorch.
"""

import importlib
import importlib.util
import sys

DECLARED = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_libraries = []  # keeps the declarations alive: PyTorch removes them with their library


def make_importable() -> None:
    """Import torchvision if it is installed, and declare its operators if they do not load."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in DECLARED:
        library.define(schema)
    _libraries.append(library)
    importlib.import_module("torchvision")
