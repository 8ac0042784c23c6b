"""The notebooks of docs/notebooks: cleared, linked, and run cell by cell in this process."""

import ast
import contextlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dop_lightning.images.presets import PRESETS
from tests.documents.harness import DOCS

FOLDER = DOCS / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[str]:
    """The sources of the cells of a kind."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def run(code: str, names: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line if that is an expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # type: ignore[attr-defined]


def run_all(path: Path) -> tuple[str, list[Any], dict[str, Any]]:
    """What the cells print, the values that they show, and their names."""
    printed, names = io.StringIO(), {"__name__": "__main__"}
    with contextlib.redirect_stdout(printed):
        values = [run(code, names) for code in cells(path, "code")]
    return printed.getvalue(), [value for value in values if value is not None], names


def test_three_notebooks_exist() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["own_network", "photograph", "table"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_cleared_and_linked_with_valid_links(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert f"(notebooks/{path.name})" in (DOCS / "notebooks.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", "\n".join(cells(path, "markdown"))):
        assert (path.parent / target).is_file(), target


def test_the_photograph_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    backend = plt.get_backend()
    plt.switch_backend("agg")
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["quick"], iterations=5, width=4))
    printed, shown, names = run_all(FOLDER / "photograph.ipynb")
    plt.close("all")
    plt.switch_backend(backend)
    assert printed.startswith("uint8 (96, 96, 3) done\nPSNR ")
    assert shown[1] is names["recovery"]
    assert "PSNR" in names["recovery"]._repr_html_()


def test_the_table_is_cleaned() -> None:
    pytest.importorskip("sklearn")
    printed, (pca,), names = run_all(FOLDER / "table.ipynb")
    assert printed.startswith("rank 2\n")
    error, plain = map(float, re.findall(r"error ([\d.]+), of PCA ([\d.]+)", printed)[0])
    assert error < plain / 3
    assert pca is names["pca"]


def test_custom_network_is_fitted() -> None:
    printed, _, names = run_all(FOLDER / "own_network.ipynb")
    errors = [float(error) for error in re.findall(r"relative error ([\d.]+)", printed)]
    assert len(errors) == 5
    observed = (names["observation"] - names["truth"]).norm() / names["truth"].norm()
    assert errors[-1] < 0.25 * float(observed)
    found, total = map(int, re.findall(r"(\d+) of (\d+) outliers", printed)[0])
    assert found > 0.8 * total
