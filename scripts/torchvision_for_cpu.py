"""Import a torchvision built for CUDA beside a PyTorch of the CPU, for the tests and scripts that need deepinv.

Package indexes have torchvision as a build for CUDA. Its compiled operators do not load beside a PyTorch of the CPU,
and its Python part cannot be imported without two of them. They are declared here, without code: deepinv uses
torchvision for reading and arranging images only. Users should install the build that matches their PyTorch.
"""

import importlib
import importlib.util
import sys

DECLARED = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_libraries = []  # PyTorch forgets what was declared by a library that is gone


def make_importable() -> None:
    """Import torchvision if it is installed, with operators declared if its own do not load."""
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
