"""The files of a run, made without one, and a page read back as a browser would."""

import json
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VOID = {"meta", "link", "img", "input", "br"}

RESULT = {
    "attributes": {"image": "camera"},
    "seed": 3,
    "tau": 1.0,
    "alpha": 400.0,
    "status": "done",
    "iterations": 100,
    "seconds": 75.0,
    "loss": 2e-4,
    "input_psnr": 9.5,
    "psnr": 34.387,
    "best_psnr": 35.1,
    "best_iteration": 80,
    "true_density": 0.4,
    "corruption_density": 0.39,
    "machine": {"device": "cpu", "torch": "2.13.0", "dop_lightning": "0.1.0"},
}
CURVE = {"psnr": {20: 12.0, 40: 20.5, 100: 34.387}, "loss": {20: 0.1, 40: 0.01, 100: 2e-4}}
PICTURES = ("observation", "recovered", "corruption", "truth")


def write_run(
    run: Path,
    problems: Mapping[str, Mapping[str, Any] | None],
    curves: Mapping[str, Mapping[int, float]] = CURVE,
    pictures: Sequence[str] = PICTURES,
    config: str | None = "model:\n  tau: 1.0\n",
    shape: Sequence[int] = (1, 12, 16),
) -> Path:
    """A run of problems by name: what their results say beside :data:`RESULT`, ``None`` for no result at all."""
    run.mkdir(parents=True)
    entries = [{"name": name, "shape": list(shape), "attributes": {}} for name in problems]
    (run / "manifest.json").write_text(
        json.dumps({"version": 2, "fingerprint": "x", "problems": entries, "batches": []})
    )
    if config is not None:
        (run / "config.yaml").write_text(config, encoding="utf-8")
    rows = ["problem,iteration,tag,value"]
    for name, result in problems.items():
        folder = run / name
        folder.mkdir()
        rows += [f"{name},{i},{tag},{value}" for tag, curve in curves.items() for i, value in curve.items()]
        if result is not None:
            (folder / "result.json").write_text(json.dumps({"problem": name, **RESULT, **result}))
            for picture in pictures:
                levels = np.random.default_rng(0).integers(0, 256, shape[-2:], dtype=np.uint8)
                Image.fromarray(levels).save(folder / f"{picture}.png")
    (run / "metrics.csv").write_text("\n".join([*rows, ""]), encoding="utf-8")
    return run


class Page(HTMLParser):
    """The elements of a page: attributes, and the text inside.

    Raises:
        AssertionError: an element is not closed, or closed in the wrong place.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert not self._open, f"<{self.elements[self._open[-1]][0]}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.append("")
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        opened = self.elements[self._open.pop()][0]
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data: str) -> None:
        for place in self._open:
            self.texts[place] += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """The attributes of elements of a kind; ``class_`` is one of several."""
        return [attrs for name, attrs in self.elements if name == tag and _fits(attrs, attributes)]

    def text(self, tag: str, **attributes: str) -> list[str]:
        """Texts of all elements of a kind."""
        return [
            " ".join(text.split())
            for (name, attrs), text in zip(self.elements, self.texts, strict=True)
            if name == tag and _fits(attrs, attributes)
        ]


def _fits(attrs: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(
        value in attrs.get("class", "").split() if name == "class_" else attrs.get(name) == value
        for name, value in wanted.items()
    )
