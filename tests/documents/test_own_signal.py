"""What the code of docs/own_signal.md and docs/stopping.md computes, run as it stands, and a network in YAML."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from torch import Tensor, nn

from dop_lightning.cli.main import main
from tests.documents.harness import DOCS, ROOT, Block, blocks, run_python

CONFIGS = ROOT / "configs"
OWN_SIGNAL = DOCS / "own_signal.md"


def said(block: Block, page: Path) -> list[float]:
    """The numbers that code prints."""
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", run_python(block, page))]


def test_custom_loop_recovers() -> None:
    loop = blocks(OWN_SIGNAL, "python")[0]
    assert said(loop, OWN_SIGNAL)[0] < 0.05
    assert sum(bool(line.strip()) for line in loop.code.splitlines()) <= 28


def test_a_network_in_the_engine_recovers() -> None:
    before, after = said(blocks(OWN_SIGNAL, "python")[1], OWN_SIGNAL)
    assert after > before + 6


class MyNetwork(nn.Module):
    def __init__(self, shape: tuple[int, ...], width: int = 3) -> None:
        super().__init__()
        self.shape = shape
        channels, height, columns = shape
        self.layers = nn.Sequential(nn.Linear(16, width), nn.Tanh(), nn.Linear(width, channels * height * columns))

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(z)).view(self.shape)


@pytest.mark.parametrize("with_input", [True, False])
def test_network_is_selected_in_yaml(with_input: bool, tmp_path: Path, monkeypatch, capsys) -> None:
    package = ModuleType("my_package")
    package.MyNetwork = MyNetwork  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_package", package)
    (block,) = blocks(OWN_SIGNAL, "yaml")
    settings = yaml.safe_load(block.code)
    if not with_input:
        del settings["model"]["signal"]["init_args"]["input"]
        settings["model"]["signal"]["init_args"]["network"] = {"class_path": "dop_lightning.model.signals.FourierMLP"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    files = ["--config", str(CONFIGS / "image.yaml"), "--config", str(tmp_path / "mine.yaml")]
    run = tmp_path / "run"
    options = ["--data.resize", "12", "--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(run)]
    assert main(["fit", *files, *options, "--trainer.max_steps", "3"]) == 0, capsys.readouterr().err
    again = ["--config", str(run / "config.yaml"), "--trainer.max_steps", "5"]
    assert main(["fit", *again]) == 0, capsys.readouterr().err
    assert "Resuming" in capsys.readouterr().err


def test_stopping_in_a_custom_loop() -> None:
    (loop,) = blocks(DOCS / "stopping.md", "python")
    stopped, best, value = said(loop, DOCS / "stopping.md")
    assert stopped == best + 30
    assert 200 <= best <= 215
    assert abs(value) < 0.01
