"""Import deepinv, with advice if it is missing."""

from types import ModuleType


def import_deepinv() -> ModuleType:
    """Import and return the package deepinv.

    Raises:
        ImportError: deepinv is not installed, or its torchvision does not match PyTorch.
    """
    try:
        import deepinv
    except ModuleNotFoundError as error:
        raise ImportError(
            f'dop_lightning.integrations.deepinv requires {error.name}: pip install "dop_lightning[physics]"'
        ) from error
    except RuntimeError as error:
        if "torchvision" not in str(error):
            raise
        raise ImportError(
            "deepinv requires a torchvision of the same build as PyTorch (CPU or CUDA); install that build"
        ) from error
    module: ModuleType = deepinv
    return module
