"""Questions of newcomers, as they type them into the search of the site, and the page that answers each."""

import json
import shutil
import subprocess
from pathlib import Path

QUESTIONS = {
    "install": "index",
    "restore a photograph": "photograph",
    "dead pixels": "damage",
    "scratches": "damage",
    "missing values": "masks",
    "FITS": "scientific",
    "image formats": "files",
    "robust PCA": "matrix",
    "video background": "video",
    "Lightning Trainer": "lightning",
    "xarray": "arrays",
    "deblurring": "operators",
    "custom network": "own_signal",
    "TensorBoard": "logging",
    "GPU": "gpu",
    "SLURM": "cluster",
    "resume": "resume",
    "alpha": "alpha",
    "early stopping": "stopping",
    "how it works": "how_it_works",
    "exit status": "command_line",
    "Optuna": "tuning",
}
FIRST = 3
"""The answer must be among this many hits."""


def pages_found(site: Path, queries: list[str]) -> list[list[str]]:
    """Return the pages that the search of a built site finds for each query, the best first.

    The site's own script runs in Node.js.
    """
    node = shutil.which("node")
    assert node is not None, "Node.js is not installed"
    script = Path(__file__).with_name("search.js")
    done = subprocess.run(
        [node, str(script), str(site)], input="\n".join(queries), capture_output=True, text=True, timeout=60, check=True
    )
    return [[hit.partition("#")[0] for hit in json.loads(line)] for line in done.stdout.splitlines()]


def unanswered(site: Path) -> list[str]:
    """Return a line for each question whose answer is not among the first hits."""
    found = pages_found(site, list(QUESTIONS))
    return [
        f"{question}: {page} is not among {pages[:FIRST]}"
        for (question, page), pages in zip(QUESTIONS.items(), found, strict=True)
        if page not in list(dict.fromkeys(pages))[:FIRST]
    ]
