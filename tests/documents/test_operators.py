"""The blocks of docs/operators.md: commands at a tiny size, code and settings as they stand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.documents.harness import DOCS, blocks, commands, prepare, run_python, words_of
from tests.whole_runs.test_measured_runs import SMALL, size

PAGE = DOCS / "operators.md"
FITS = [command for command in commands(PAGE) if command.startswith("dop ")]


@pytest.mark.parametrize("command", FITS, ids=range(len(FITS)))
def test_commands_of_the_page_run(command: str, dop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in ("small", "blurred"):
        Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(f"{name}.png")
    Image.fromarray(np.diag([9, 99, 9]).astype(np.uint8)).save("kernel.png")
    own = "--data.images" in command
    said = dop(*words_of(command)[1:], *SMALL, *([] if own else ["--data.resize", "16"]))
    assert said.status == 0, said.err
    (written,) = tmp_path.glob("runs/*/*/*/recovered.png")
    factor = 2 if "configs/superresolution.yaml" in command else 1
    assert size(written) == ((12 * factor, 9 * factor) if own else (16, 16))


def test_code_of_the_page_runs() -> None:
    (code,) = blocks(PAGE, "python")
    assert run_python(code, PAGE) == "(3, 32, 48) torch.Size([3, 32, 48])\n"


def test_settings_of_the_page_are_read(dop, tmp_path: Path) -> None:
    pytest.importorskip("deepinv", exc_type=ImportError)
    (settings,) = blocks(PAGE, "yaml")
    (tmp_path / "physics.yaml").write_text(settings.code, encoding="utf-8")
    options = ["--data.resize", "16", "--trainer.default_root_dir", str(tmp_path / "run")]
    said = dop("fit", "--config", "configs/blur.yaml", "--config", str(tmp_path / "physics.yaml"), *SMALL, *options)
    assert said.status == 0, said.err
