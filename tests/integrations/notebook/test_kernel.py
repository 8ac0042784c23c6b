"""Notebooks in a kernel of Jupyter: all of docs/notebooks, results that display once, and the live display."""

import base64
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ipykernel")
pytest.importorskip("ipywidgets")
nbformat = pytest.importorskip("nbformat")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    nbclient = pytest.importorskip("nbclient")

from tests.documents.harness import DOCS  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(280)]  # those of zmq and asyncio

DAMAGED = """
import numpy as np
from dop_lightning import recover_image
rows, columns = np.mgrid[:40, :48]
random = np.random.default_rng(0)
smooth = 128 + 90 * np.sin(0.2 * rows + 0.15 * columns)
damaged = np.where(random.random(smooth.shape) < 0.2, random.choice([0, 255], smooth.shape), smooth).astype(np.uint8)
"""


def executed(*cells: str) -> list[list[Any]]:
    """Run cells in a kernel, and return the outputs of each."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


def kinds(outputs: list[Any]) -> list[str]:
    """The types of displayed outputs, text beside others left out."""
    shown = [output for output in outputs if output.output_type in ("display_data", "execute_result")]
    return [next((kind for kind in output.data if kind != "text/plain"), "text/plain") for output in shown]


@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_of_the_documents_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": "."}}
    ).execute()
    assert not [
        output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "error"
    ]


def test_results_are_displayed_once() -> None:
    pytest.importorskip("sklearn")
    _, recovery, pca = executed(
        DAMAGED + "recovery = recover_image(damaged, preset='instant', progress=False)",
        "recovery",
        "from dop_lightning import RobustPCA\nRobustPCA().fit(np.outer(np.arange(1., 21), np.arange(1., 9)))",
    )
    assert kinds(recovery) == ["text/html"]
    assert recovery[0].data["text/html"].count("<img") == 1
    assert kinds(pca) == ["text/html"]
    assert "sk-container" in pca[0].data["text/html"]  # scikit-learn's own


def test_progress_is_shown_live() -> None:
    """The widget is displayed once; its state at the end has the bar, a text and the last picture."""
    cell = DAMAGED + "recovery = recover_image(damaged, preset='quick', width=4, iterations=60)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell), nbformat.v4.new_code_cell(RESULT)])
    client = nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3")
    client.execute()
    live, result = notebook.cells
    assert kinds(live.outputs) == ["application/vnd.jupyter.widget-view+json"]
    states = list(client.widget_state.values())
    (bar,) = [state for state in states if state["_model_name"] == "IntProgressModel"]
    assert (bar["value"], bar["max"], bar["bar_style"]) == (60, 60, "success")
    assert next(state["value"] for state in states if state["_model_name"] == "LabelModel").startswith("done in ")
    (found,) = [each for each in client.widget_buffers.values() if each]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(next(iter(found.values()))["data"]))))
    assert np.abs(picture.astype(int) - np.array(eval(result.outputs[0].text))).max() <= 1


RESULT = "print(recovery.image.tolist())"


def test_the_stop_button_keeps_what_is_recovered() -> None:
    cells = [DAMAGED + STOP, "recovery = recover_image(damaged, preset='quick', iterations=100_000)", STATUS]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3")
    client.execute()
    status, iterations = notebook.cells[2].outputs[0].text.split()
    assert status == "interrupted"
    assert 0 < int(iterations) < 100_000
    (bar,) = [state for state in client.widget_state.values() if state["_model_name"] == "IntProgressModel"]
    assert bar["bar_style"] == "warning"
    assert int(iterations) == bar["value"]


STOP = """
import os, signal
from dop_lightning.images.live_widget import LiveWidget
advance = LiveWidget.advance

def advance_and_stop(self, done, scores):  # the button sends this signal
    advance(self, done, scores)
    LiveWidget.advance = advance
    os.kill(os.getpid(), signal.SIGINT)

LiveWidget.advance = advance_and_stop
"""

STATUS = "print(recovery.status, recovery.iterations)"
