"""Files of torch with a checksum of their tensors and values, which is checked when they are read.

``torch.load`` does not check the checksums of the zip archive that it reads. Those of an archive depend on how it is
laid out; the checksum of a state depends on its keys, values and tensors alone.
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
    """Return the checksum of tensors and plain values in dictionaries, lists and tuples, in their order.

    Raises:
        TypeError: something else is among them.
    """
    whole = Checksum()
    _add(whole, state)
    return str(whole)


def _add(whole: Checksum, value: Any) -> None:
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
            _add(whole, key)
            _add(whole, each)
    elif isinstance(value, list | tuple):
        whole.add(f"list {len(value)};".encode())
        for each in value:
            _add(whole, each)
    else:
        raise TypeError(f"a state must consist of tensors and plain values, got {type(value).__name__}")


def save_state(content: Mapping[str, Any], stream: BinaryIO) -> None:
    """Write a state with its checksum, by ``torch.save``.

    A state with other objects than tensors and plain values is written without; its archive has checksums as well.
    """
    try:
        checked = {**content, CHECKSUM: state_checksum(content)}
    except TypeError:
        checked = dict(content)
    torch.save(checked, stream)


def load_state(path: Path) -> Any:
    """Read a state onto the CPU and check it. No code in the file is run.

    A file without a checksum is one of an earlier version, or of another program. Its archive is checked instead.

    Raises:
        ValueError: the file is damaged, or not one of torch.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
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
        raise ValueError(f"{path}: damaged, its checksum is that of other content")
    return content


def check_archive(path: Path) -> None:
    """Check the records of a file of torch by the checksums of its zip archive.

    Raises:
        ValueError: a record is damaged, or the file is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # zipfile raises many kinds for damaged headers
        raise damage(path, error) from error
    if broken is not None:
        raise ValueError(f"{path}: damaged, its record {broken} has another checksum")


def damage(path: Any, error: Exception) -> ValueError:
    """Return what to say of a file that cannot be read."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(f"{path}: damaged, or not a checkpoint written by dop ({reason})")
