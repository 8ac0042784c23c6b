"""Import deepinv, or say what to install."""

from types import ModuleType


def import_deepinv() -> ModuleType:
    """Return the package deepinv.

    Raises:
        ImportError: it is not installed, or its torchvision does not match PyTorch.
    """
    try:
        import deepinv
    except ModuleNotFoundError as error:
        raise ImportError(
            f'dop_lightning.integrations.deepinv needs {error.name}: pip install "dop_lightning[physics]"'
        ) from error
    except RuntimeError as error:
        if "torchvision" not in str(error):
            raise
        raise ImportError(
            "deepinv needs a torchvision of the same build as PyTorch (CPU or CUDA); install that build of torchvision"
        ) from error
    module: ModuleType = deepinv
    return module
