"""Readers that a higher room brings: found by content, imported at their first use."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dop_lightning.foundation import readers


def test_reader_is_imported_on_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_READERS", dict(readers._READERS))
    readers.register_reader("numbers", "numpy:load")
    np.save(tmp_path / "a.npy", np.arange(3))
    assert readers.reader_of("numbers")(tmp_path / "a.npy").tolist() == [0, 1, 2]


def test_content_without_a_reader_is_refused() -> None:
    with pytest.raises(ValueError, match=r"content must have a registered reader \(image\), got 'sound'"):
        readers.reader_of("sound")


def test_kernel_is_read_with_operators_imported_only(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.ones((3, 3)))
    code = (
        "import sys; from dop_lightning.model.operators import Blur; "
        "assert 'dop_lightning.images' not in sys.modules; "
        f"print(Blur({str(tmp_path / 'k.npy')!r}).slug)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("blur-3x3-")
