"""Unusual names of files and sources: all output stays in the run folder."""

import csv
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dop_lightning.foundation.names import LONGEST, printable, safe_name, unique_names
from dop_lightning.lightning.data import ImageDataModule, MatrixDataModule, RecoveryDataModule
from dop_lightning.lightning.data.base import Source
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.model.signals import Coordinates

NOT_UTF8 = os.fsdecode(b"\xff\xfe")
OF_THE_RUN = [
    "checkpoints",
    "config.yaml",
    "log.txt",
    "manifest.json",
    "metrics.csv",
    "point.json",
    "report.html",
    "results.csv",
    "sweep.json",
]
DEVICES = ["CON", "nul", "Aux", "PRN.old", "com1", "COM¹", "lpt9.tar", "nul" + "." * 130 + "x", "con." + "y" * 300]
NASTY = [
    *(
        "",
        " ",
        ".",
        "..",
        "...",
        "/",
        "//",
        "\\",
        "/etc/passwd",
        "C:\\Windows",
        "\\\\host\\share",
        "file:///etc/passwd",
    ),
    *(
        "../up",
        "..\\up",
        "a/../../b",
        "%2e%2e",
        "%2e%2e%2fup",
        "..%c0%afup",
        "~",
        "~root",
        "-rf",
        "--help",
        "$(reboot)",
    ),
    *("a\nb", "a\r\nb", "\t", "\x1b[31mred", "\x7f", "a\0b", "\0", "a\u2028b", "\u0085"),
    *(
        "\u202egnp.exe",
        "\u2066a\u2069",
        "a\u200bb",
        "\u200d",
        "\ufeffa",
        "\u00ad",
        "\ufe0f",
        "e\u0301\u0301\u0301",
        "\u0301",
    ),
    *(
        "🙂",
        "👩‍👩‍👧",
        "🏴\U000e0067\U000e007f",
        "\ue000",
        "\U0010ffff",
        "﷽" * 50,
        "ﬁ",
        "ⅷ",
        "．．／up",
        "‥",
        "⁄",
        "∕",
        "＼",
    ),
    *(NOT_UTF8, f"a{NOT_UTF8}b", "\ud800", "\udfff\ud800", "x\udc80" * 200),
    *("straße", "STRASSE", "Straße", "σς", "ΣΣ", "é", "e\u0301", "É", "İ", "i", "I", "ı", "K", "K", "Å", "Å"),
    *(
        "x" * 255,
        "x" * 256,
        "é" * 127,
        "é" * 128,
        "🙂" * 63,
        "日" * 85,
        "x" * 119 + "é",
        "x" * 120 + "..",
        "trailing. . .",
    ),
    *(
        ".tmp",
        ".hidden",
        "tmp",
        "metrics",
        "recovered.npy",
        "a-r0-c0",
        "a",
        "A",
        "a-2",
        "a-2-2",
        "problem",
        "Problem-2",
    ),
    *DEVICES,
    *OF_THE_RUN,
    *(name.upper() for name in OF_THE_RUN),
    *(f".{name}." for name in OF_THE_RUN),
]

PIECES = st.sampled_from([*NASTY, *"./\\-_ \0\n:", "%2e", ".."])
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=300)  # lone surrogates too
NAMES = st.one_of(st.sampled_from(NASTY), ANY_TEXT, st.lists(PIECES, max_size=6).map("".join))

quickly = partial(
    settings,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def folded(name: str) -> str:
    """What file systems take for the same that take the most names for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def assert_safe(name: str, longest: int = LONGEST) -> None:
    """One component of a path, on every system."""
    assert name not in ("", ".", "..")
    assert not set(name) & set('/\\:*?"<>|~%$ \0'), name
    assert not any(unicodedata.category(c).startswith(("C", "Z")) for c in name), name
    assert name[0] not in ".-_"
    assert name[-1] not in ". "
    assert len(name.encode("utf-8")) <= longest
    assert unicodedata.is_normalized("NFC", name)
    assert folded(name) not in OF_THE_RUN
    first = folded(name).partition(".")[0]
    assert first not in ("con", "prn", "aux", "nul", *(f"{port}{k}" for port in ("com", "lpt") for k in range(10)))
    assert Path(os.path.normpath(Path("/run") / name)).parent == Path("/run")


@pytest.mark.parametrize("text", NASTY)
def test_a_nasty_name_becomes_a_safe_one(text: str) -> None:
    assert_safe(safe_name(text))
    assert safe_name(safe_name(text)) == safe_name(text)


@quickly(max_examples=1000)
@given(NAMES)
def test_any_name_becomes_a_safe_one(text: str) -> None:
    assert_safe(safe_name(text))
    assert safe_name(safe_name(text)) == safe_name(text)


@quickly(max_examples=300)
@given(st.lists(NAMES, max_size=12))
def test_names_are_distinct_on_every_file_system(texts: list[str]) -> None:
    names = unique_names([safe_name(text) for text in texts])
    assert len({folded(name) for name in names}) == len(texts)
    for name in names:
        assert_safe(name, longest=LONGEST + 10)


def test_many_equal_names_are_distinguished() -> None:
    names = unique_names([safe_name("é" * 300)] * 1000)
    assert len({folded(name) for name in names}) == 1000
    assert max(len(name.encode()) for name in names) < 255 - len("-r000-c000")  # what a tile adds


@quickly(max_examples=300)
@given(NAMES)
def test_legible_text_can_be_written_on_a_line(text: str) -> None:
    assert len(printable(text).encode("utf-8").decode().splitlines()) <= 1
    assert printable(printable(text)) == printable(text)


# ---------------------------------------------------------------------------------------------------------------- runs


class Named(Source):
    """A signal under any name."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def is_clean(self) -> bool:
        return True

    def signal(self, seed: int) -> Tensor:
        return torch.ones(2, 2)


class NamedModule(RecoveryDataModule):
    """Signals under these names."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = names

    def sources(self) -> Sequence[Source]:
        return [Named(name) for name in self.names]


def method() -> DoubleOverparameterization:
    return DoubleOverparameterization(Coordinates, corruption=None, tau=0.1, alpha=1.0)


def assert_run(tmp_path: Path, fit: Callable[..., Any], data: RecoveryDataModule, problems: int) -> None:
    """A run leaves its files, and those of its problems, in its folder, and nothing elsewhere."""
    run = tmp_path / "run"
    run.mkdir()
    around = sorted(tmp_path.rglob("*"))
    fit(run, method(), data, 2)
    assert [path for path in sorted(tmp_path.rglob("*")) if run not in path.parents] == around
    folders = sorted(path.name for path in run.iterdir() if (path / "result.json").is_file())
    assert folders == sorted(whole.name for whole in data.wholes)
    assert len(folders) == problems
    assert {path.name for path in run.iterdir()} - set(folders) <= set(OF_THE_RUN)
    with (run / "results.csv").open(newline="", encoding="utf-8") as file:
        assert sorted(row["problem"] for row in csv.DictReader(file)) == folders
    for name in folders:
        assert_safe(name, longest=LONGEST + 10)
        assert json.loads((run / name / "result.json").read_text(encoding="utf-8"))["problem"] == name
        assert (run / name / "recovered.npy").is_file()


def test_sources_of_nasty_names_are_recovered_inside(
    tmp_path: Path, fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert_run(tmp_path, fit, NamedModule(NASTY), len(NASTY))


def written(folder: Path, suffix: str, write: Callable[[Path], object]) -> int:
    """Files of all nasty names that the file system takes; how many there are."""
    folder.mkdir()
    for name in NASTY:
        path = folder / f"{name}{suffix}"
        if not name or {"/", "\0"} & set(name) or name.startswith("."):
            continue  # no name of a file, or a hidden one
        try:
            write(path)
        except (OSError, UnicodeEncodeError):
            continue  # too long, or not of this file system
    return len(os.listdir(folder))  # noqa: PTH208 — some may be the same


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take fewer names")
def test_matrices_of_nasty_names_are_recovered_inside(tmp_path: Path, fit: Callable[..., Any]) -> None:
    count = written(tmp_path / "given", ".npy", lambda path: np.save(path, np.ones((2, 2))))
    assert count > 80
    assert_run(tmp_path, fit, MatrixDataModule(files=str(tmp_path / "given")), count)


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take fewer names")
def test_images_and_tiles_of_nasty_names_are_recovered_inside(tmp_path: Path, fit: Callable[..., Any]) -> None:
    count = written(tmp_path / "given", ".npy", lambda path: np.save(path, np.full((9, 8), 0.5, np.float32)))
    assert_run(tmp_path, fit, ImageDataModule(str(tmp_path / "given"), tile=8), count)


def test_names_of_tiles_of_another_image(tmp_path: Path, fit: Callable[..., Any]) -> None:
    (tmp_path / "given").mkdir()
    for name in ("a", "A-R0-C0", "a-r1-c0", "a-r0-c0-2", "tiles"):
        side = 9 if name == "a" else 8
        np.save(tmp_path / "given" / f"{name}.npy", np.full((side, side), 0.5, np.float32))
    data = ImageDataModule(str(tmp_path / "given"), tile=8)
    assert_run(tmp_path, fit, data, 5)
    assert len({folded(problem.name) for problem in data.problems}) == len(data.problems)


def test_attributes_of_hostile_names_are_writable(tmp_path: Path) -> None:
    path = tmp_path / f"a\n{NOT_UTF8}.npy"
    np.save(path, np.ones((2, 2)))
    data = MatrixDataModule(files=str(path))
    data.setup()
    assert data.problems[0].attributes == {"matrix": "a\ufffd\ufffd\ufffd"}
