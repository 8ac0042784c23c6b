"""``dop figure``."""

import builtins
import subprocess
import sys
from pathlib import Path

import pytest

from dop_lightning.paper.figures import FIGURES, configs
from tests.paper.figures.builders import write_tiny


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configs of Figure 2a, tiny."""
    own = write_tiny("2a", tmp_path / "configs")
    monkeypatch.setattr(configs, "config_folder", lambda: tmp_path / "configs")
    return own


def test_help_lists_the_figures(dop) -> None:
    said = dop("figure", "--help")
    assert said.status == 0
    for name, entry in FIGURES.items():
        assert name in said.out
        assert entry.text in said.out


def test_help_avoids_heavy_imports(tmp_path: Path) -> None:
    probe = "import sys; from dop_lightning.cli import figure; figure.parser().format_help(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"torch", "matplotlib", "pytorch_lightning"} & set(found.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the following arguments are required: NAME, --out"),
        (["2a"], "the following arguments are required: --out"),
        (["3x", "--out", "o"], "invalid choice: '3x'"),
        (["2a", "--out", "o", "--images", "i"], "--images is only supported for figures of images, got figure 2a"),
        (
            ["3", "--out", "o", "--rivals", "namf"],
            "--rivals and --runs are only supported for figure grid, got figure 3",
        ),
        (["grid", "--out", "o", "--rivals", "nanf"], "got 'nanf'; did you mean 'namf'?"),
        (["grid", "--out", "o", "--runs", "no/such"], "no/such: must be the folder of a run"),
        (["3", "--out", "o", "--images", "i"], "got --images i with --scale small"),
        (["3", "--out", "o", "--scale", "paper", "--images", "no/such"], "no/such: the paper's images"),
        (["2a", "--out", "o", "--scale", "huge"], "invalid choice: 'huge'"),
        (["2a", "--out", "o", "--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_mistakes_give_one_line(arguments: list[str], text: str, dop) -> None:
    said = dop("figure", *arguments)
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert said.err.startswith("dop figure: error: ")
    assert text in said.err


def test_repeated_command_redraws_without_runs(tiny: Path, dop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = dop("figure", "2a", "--out", str(out), "--device", "cpu")
    assert first.status == 0
    results = sorted(out.glob("runs/dop/*/result.json"))
    assert len(results) == 6
    (out / "2a.png").unlink()
    missing = results.pop()
    missing.unlink()
    before = [path.read_bytes() for path in results]
    again = dop("figure", "2a", "--out", str(out), "--device", "cpu")
    assert again.status == 0
    assert again.out == first.out
    assert [path.read_bytes() for path in results] == before
    assert missing.is_file()
    assert (out / "2a.png").is_file()


def test_folder_of_another_scale_is_refused(tiny: Path, dop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert dop("figure", "2a", "--out", str(out), "--device", "cpu").status == 0
    (tiny / "small" / "dop.yaml").replace(tiny / "other.yaml")  # the overlay of small.yaml stands then
    said = dop("figure", "2a", "--out", str(out), "--device", "cpu")
    assert said.status == 2
    assert "holds another run" in said.err


def test_missing_matplotlib_names_the_extra(dop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)

    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    said = dop("figure", "2a", "--out", str(tmp_path))
    assert said.status == 2
    assert 'pip install "dop_lightning[figures]"' in said.err
    assert list(tmp_path.iterdir()) == []
