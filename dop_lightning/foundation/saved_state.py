"""Save and load states with ``torch.save`` and a checksum, which is verified on loading.

``torch.load`` does not verify the checksums of its zip archive. Those also depend on the layout of the archive, while
the checksum of a state depends only on its keys, values and tensors.
"""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from dop_lightning.foundation.checksums import CHECKSUM, Checksum

_PLAIN = (torch.dtype, torch.device, torch.Size)


def state_checksum(state: Any) -> str:
    """Return the checksum of tensors and plain values in nested dictionaries, lists and tuples, in their order.

    Raises:
        TypeError: the state contains an object of another type.
    """
    whole = Checksum()
    _update_checksum(whole, state)
    return str(whole)


def _update_checksum(whole: Checksum, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().contiguous()
        whole.add(f"tensor {tensor.dtype} {tuple(tensor.shape)};".encode())
        whole.add(tensor.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, float):
        whole.add(b"float" + struct.pack("<d", value))
    elif value is None or isinstance(value, bool | int):
        whole.add(f"{value!r};".encode())
    elif isinstance(value, str | bytes):
        content = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        whole.add(f"{type(value).__name__} {len(content)};".encode() + content)
    elif isinstance(value, _PLAIN):
        whole.add(f"{value!r};".encode())
    elif isinstance(value, Mapping):
        whole.add(f"map {len(value)};".encode())
        for key, each in value.items():
            _update_checksum(whole, key)
            _update_checksum(whole, each)
    elif isinstance(value, list | tuple):
        whole.add(f"list {len(value)};".encode())
        for each in value:
            _update_checksum(whole, each)
    else:
        raise TypeError(f"a state must consist of tensors and plain values, got {type(value).__name__}")


def save_state(content: Mapping[str, Any], stream: BinaryIO) -> None:
    """Write a state and its checksum with ``torch.save``.

    A state with objects other than tensors and plain values is written without a checksum; its archive still has some.
    """
    try:
        checked = {**content, CHECKSUM: state_checksum(content)}
    except TypeError:
        checked = dict(content)
    torch.save(checked, stream)


def load_state(path: Path) -> Any:
    """Load a state to the CPU and verify it. Code in the file is not executed.

    If the file has no checksum, because an earlier version or another program wrote it, its archive is checked instead.

    Raises:
        ValueError: the file is damaged, or was not written by ``torch.save``.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types
        raise damage(path, error) from error
    if not isinstance(content, dict) or CHECKSUM not in content:
        check_archive(path)
        return content
    expected = content.pop(CHECKSUM)
    try:
        found = state_checksum(content)
    except TypeError as error:
        raise damage(path, error) from error
    if found != expected:
        raise ValueError(f"{path}: damaged, its checksum does not match its content")
    return content


def check_archive(path: Path) -> None:
    """Verify the zip archive of a file written by ``torch.save`` with its checksums.

    Raises:
        ValueError: a record is damaged, or the file is not a zip archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # zipfile raises many types for damaged headers
        raise damage(path, error) from error
    if broken is not None:
        raise ValueError(f"{path}: damaged, the checksum of its record {broken} does not match")


def damage(path: Any, error: Exception) -> ValueError:
    """Return the error for a file that cannot be read."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(f"{path}: damaged, or not a checkpoint written by dop ({reason})")
