"""The comparison with classical filters, at a tiny size and in this process."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SCRIPT = "compare_rivals"

SMALL = ["--sizes", "24", "--iterations", "2", "--width", "4"]


@pytest.fixture
def run(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., tuple[str, str]]:
    def call(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["compare_rivals.py", "--out", str(tmp_path / "rows"), *arguments])
        assert script.main() == 0
        said = capsys.readouterr()
        return said.out, said.err

    return call


@pytest.mark.slow
def test_all_rivals_are_compared_and_finished_rows_are_kept(run, script, tmp_path: Path) -> None:
    asked = ["--subset", "--cases", "random", "dense", "--photographs", "coffee", *SMALL]
    out, err = run(*asked)
    lines = out.splitlines()
    assert lines[0].startswith("| case | images | biharmonic | convolution |")
    assert lines[0].endswith("| dop | dip-mask | dip-mask, oracle | dip-l1 | dip-l1, oracle |")
    for kind in ("random", "dense"):
        line = next(line for line in lines if line.startswith(f"| {kind}, 50 %, 24×24"))
        own = [rival for rival in script.METHODS.values() if kind in rival.kinds]
        assert len(re.findall(r"\d+\.\d\d / \d+\.\d\d", line)) == len(own) + 2
    files = sorted((tmp_path / "rows").iterdir())
    assert len(files) == 2 * len(script.METHODS) - 1 == len(err.splitlines())  # bm3d-told is for dense only
    times = [file.stat().st_mtime_ns for file in files]
    again, nothing = run(*asked)
    assert (again, nothing) == (out, "")
    assert [file.stat().st_mtime_ns for file in files] == times
    said, _ = run(*asked, "--list")
    assert re.search(r"^dense +dip-l1 +1 +\d+ s +0 +0 s$", said, re.MULTILINE)
    assert said.endswith("estimated time left: 0 minutes\n")


def test_rows_with_other_settings_or_damage_are_measured_again(run, tmp_path: Path) -> None:
    asked = ["--subset", "--cases", "natural", "--photographs", "coffee", "--methods", "namf", "dip-l1", *SMALL]
    run(*asked)
    (tmp_path / "rows" / "natural-coffee-50-24--namf.json").write_text("{", encoding="utf-8")
    _, err = run(*asked, "--iterations", "3")
    assert re.findall(r"coffee-50-24 ([\w-]+):", err) == ["namf", "dip-l1"]
    row = json.loads((tmp_path / "rows" / "natural-coffee-50-24--dip-l1.json").read_text(encoding="utf-8"))
    assert row["settings"] == {"iterations": 3, "width": 4}


def test_pairs_of_files_are_compared_and_costs_estimated(run, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    clean = np.full((20, 24, 3), 90, dtype=np.uint8) + np.arange(24, dtype=np.uint8)[:, None] * 2
    for level in (30, 50):
        hit = random.random(clean.shape) < level / 100
        Image.fromarray(np.where(hit, 255, clean).astype(np.uint8)).save(tmp_path / f"ramp_{level}.png")
    Image.fromarray(clean).save(tmp_path / "ramp.png")
    asked = ["--cases", "impulse", "--images", str(tmp_path), "--methods", "biharmonic", "cubic", "--each"]
    said, _ = run(*asked, "--list")
    assert re.search(r"^impulse +biharmonic +0 +0 s +2 +0 s$", said, re.MULTILINE)
    out, _ = run(*asked)
    cell = r"\d+\.\d\d / \d+\.\d\d"
    assert re.search(rf"^\| ramp: impulse, 30 % \| 1 \| {cell} \| {cell} \|$", out, re.MULTILINE)
    partly, _ = run(*asked, "--methods", "biharmonic", "--levels", "0.5")
    assert "30 %" not in partly


def test_a_filter_that_is_not_installed_is_skipped(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm3d", None)
    asked = ["--subset", "--cases", "natural", "--photographs", "coffee", *SMALL]
    out, err = run(*asked, "--methods", "bm3d", "convolution")
    assert "bm3d is skipped: BM3DAfterFill requires bm3d" in err
    assert out.startswith("| case | images | convolution |")


def test_wrong_options_are_refused(run, capsys) -> None:
    with pytest.raises(SystemExit):
        run("--cases", "impulse")
    assert "impulse needs --images" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="crops of chelsea must have a side of at most 300, got 512"):
        run("--cases", "natural", "--photographs", "chelsea", "--sizes", "512", "--methods", "telea")
