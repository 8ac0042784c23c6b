"""The scripts of ``dop completion``, asked by the shells themselves."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("shtab")


@pytest.fixture
def script(dop: Callable, tmp_path: Path) -> Callable[[str], Path]:
    def make(shell: str) -> Path:
        if shutil.which(shell) is None:
            pytest.skip(f"no {shell}")
        said = dop("completion", shell)
        assert said.status == 0, said.err
        file = tmp_path / f"dop.{shell}"
        file.write_text(said.out, encoding="utf-8")
        return file

    return make


def test_bash(script: Callable[[str], Path]) -> None:
    def replies(*words: str) -> set[str]:
        asked = " ".join(f"'{word}'" for word in words)
        code = f"source {file}; COMP_WORDS=({asked}); COMP_CWORD={len(words) - 1}; _shtab_dop; echo ${{COMPREPLY[@]}}"
        return set(subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split())

    file = script("bash")
    assert replies("dop", "re") == {"recover", "report"}
    assert replies("dop", "recover", "--preset", "") == {"instant", "quick", "default", "best", "paper"}
    assert "--trainer.max_steps" in replies("dop", "fit", "--trainer.max")
    assert "--config" in replies("dop", "sweep", "--c")


def test_fish(script: Callable[[str], Path], tmp_path: Path) -> None:
    def replies(line: str) -> set[str]:
        code = f"source {file}; complete -C '{line}'"
        done = subprocess.run(["fish", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
        return {reply.split("\t")[0] for reply in done.stdout.splitlines()}

    file = script("fish")
    (tmp_path / "results").mkdir()
    assert replies("dop rec") == {"recover"}
    assert {"instant", "paper"} <= replies("dop recover a.png --preset ")
    assert "results/" in replies("dop recover a.png --out res")


def test_zsh_reads_it(script: Callable[[str], Path]) -> None:
    file = script("zsh")
    subprocess.run(["zsh", "-n", str(file)], check=True)
    assert file.read_text().startswith("#compdef dop")


def test_other_shells_are_refused(dop: Callable) -> None:
    said = dop("completion", "tcsh")
    assert said.status == 2
    assert "invalid choice: 'tcsh' (choose from" in said.err
    assert said.err.count("\n") == 1


def test_missing_shtab_names_the_extra(dop: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    said = dop("completion", "bash")
    assert (said.status, said.out) == (2, "")
    assert said.err == 'dop completion: error: shtab is not installed: pip install "dop_lightning[completion]"\n'
