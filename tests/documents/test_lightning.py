"""The scripts of docs/lightning.md and docs/checkpoints.md, run from top to bottom."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from dop_lightning.lightning.requirements import REFUSED_CALLBACKS
from tests.documents.harness import DOCS, Block, blocks, run_python

LIGHTNING = DOCS / "lightning.md"
CHECKPOINTS = DOCS / "checkpoints.md"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings(r"ignore:(?s).*(deprecated in v4|JSONARGPARSE_DEPRECATION_WARNINGS)"),
    pytest.mark.filterwarnings("ignore:LightningCLI's args parameter is intended"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
]


def smaller(block: Block) -> Block:
    """A block in one process on the CPU."""
    code = re.sub(r"(?<!\.)devices=[14]\b", 'devices=1, accelerator="cpu"', block.code)
    return block._replace(code=code.replace('"--trainer.dev', '"--trainer.accelerator=cpu", "--trainer.dev'))


def run(page: Path) -> dict[str, Any]:
    """Run a page, and return its names."""
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        run_python(smaller(block), page, names)
    return names


def test_the_page_of_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(LIGHTNING)
    assert {record.status for record in names["module"].records.values()} == {"done"}
    assert names["module"].iteration < 5000
    assert names["outcome"].scores["rank"] == 2
    assert names["scores"]["relative_error"] == pytest.approx(float(names["best"].best_model_score))
    assert names["mine"].iteration == 2000
    assert names["mine"].recovered().scores["relative_error"] < 0.2
    for other in (names["other"], names["again"]):
        assert torch.allclose(other("mine"), names["mine"]("mine").float(), atol=1e-5)
    assert (tmp_path / "runs/script/n40-r2-gross-outliers-0.1-seed0/recovered.npy").is_file()
    assert len(list((tmp_path / "runs/shared/checkpoints/last.ckpt").glob("batch-*.pt"))) == 4
    assert (tmp_path / "runs/cli/n40-r2/result.json").is_file()
    assert names["cli"].model.iteration == 400
    assert (tmp_path / "runs/mine/checkpoints/last.ckpt").is_dir()


def test_the_page_of_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(CHECKPOINTS)
    assert names["resumed"].iteration == 500
    assert names["loaded"].iteration == 100
    (table,) = re.findall(r"\| key \| content \|\n.*?\n\n", CHECKPOINTS.read_text(encoding="utf-8"), re.S)
    content = torch.load("x.ckpt", weights_only=True)
    assert set(re.findall(r"`(\w+)`", table)) - {"class_path", "init_args"} <= set(content)


def test_every_refused_callback_is_listed() -> None:
    text = LIGHTNING.read_text(encoding="utf-8").partition("These are refused by one line when the fit starts")[2]
    kinds: list[type[Callback]] = list(REFUSED_CALLBACKS)
    assert [kind.__name__ for kind in kinds if f"`{kind.__name__}`" not in text] == []
