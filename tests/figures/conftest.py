"""The paper's figures from configs of a tiny size."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dop_lightning.figures import configs
from tests.figures.builders import write_tiny


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Gives a figure tiny configs at scale small, and the folder of the configs: ``tiny("2a")``."""

    def write(name: str) -> Path:
        own = write_tiny(name, tmp_path / "configs")
        monkeypatch.setattr(configs, "config_folder", lambda: tmp_path / "configs")
        return own

    return write
