"""``dop doctor``: each problem of an installation is reported on one line."""

import builtins
import importlib
import json
import re
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from dop_lightning.cli import hints
from dop_lightning.cli.doctor import (
    Finding,
    attempt,
    check_extras,
    check_machine,
    check_packages,
    check_trial,
    machine,
    packages,
    trial,
)
from dop_lightning.cli.doctor import command as doctor
from dop_lightning.foundation import processor
from dop_lightning.foundation.native import compiled

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "ITERATIONS", 20)
    monkeypatch.setattr(trial, "LARGEST_ERROR", 10.0)


def found(findings: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_report_of_an_installation(dop) -> None:
    said = dop("doctor")
    assert said.err == ""
    lines = said.out.splitlines()
    assert all(re.match(r"  (ok|missing|problem)  +\S", line) or line.endswith(":") for line in lines[:-2])
    assert {re.split("  +", line)[2] for line in lines if line.startswith("  ")} >= {"torch", "processor", "matrix"}
    assert not re.search(r"^  problem +(torch|matrix|network, fp32)", said.out, re.MULTILINE)
    assert lines[-1].startswith(("No problems found.", "All essential parts work"))
    assert said.status == 0


def test_json(dop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("check_packages", "check_machine", "check_extras"):
        monkeypatch.setattr(doctor, name, lambda: iter([]))
    said = dop("doctor", "--json")
    assert (said.status, said.err) == (0, "")
    rows = json.loads(said.out)
    assert {row["name"] for row in rows} == {"matrix", "network, fp32", "network, bf16"}
    assert set(rows[0]) == {"section", "name", "state", "text", "essential"}


def test_every_extra_has_a_purpose() -> None:
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(packages.PURPOSES) == set(extras)


def break_import(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """Have a package fail when it is imported, by whichever way."""
    real, statement = importlib.import_module, builtins.__import__

    def module(wanted: str, *arguments: Any) -> Any:
        if wanted.partition(".")[0] == name:
            raise error
        return real(wanted, *arguments)

    def imported(wanted: str, *arguments: Any, **options: Any) -> Any:
        if wanted.partition(".")[0] == name:
            raise error
        return statement(wanted, *arguments, **options)

    monkeypatch.setattr(importlib, "import_module", module)
    monkeypatch.setattr(builtins, "__import__", imported)


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libcudart.so.13: cannot open shared object file"),
        AttributeError("module 'numpy' has no\nattribute 'bool'"),
        OSError(8, "Exec format error"),
        SystemExit(3),
        RuntimeError("x" * 10_000),
        RuntimeError(),
    ],
)
def test_broken_package_is_one_line(error: BaseException, monkeypatch: pytest.MonkeyPatch, dop) -> None:
    monkeypatch.setattr(doctor, "check_extras", lambda: iter([]))
    break_import(monkeypatch, "torch", error)
    said = dop("doctor")
    assert (said.status, said.err) == (1, "")
    told = next(line for line in said.out.splitlines() if " torch " in line)
    assert told.startswith("  problem  torch ")
    assert f"broken: {type(error).__name__}" in told
    assert len(told) < 300
    assert said.out.splitlines()[-1].startswith("Broken: torch, ")


@pytest.mark.parametrize(
    ("version", "state", "text"),
    [
        ("2.9.0+cpu", "ok", "2.9.0+cpu"),
        ("2.10.0rc1", "ok", "2.10.0rc1"),
        ("2.5.1", "problem", '2.5.1 is installed, but >=2.6 is required: pip install "torch>=2.6"'),
        (None, "missing", 'not installed: pip install "torch>=2.6"'),
    ],
)
def test_versions(version: str | None, state: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def look(name: str) -> str:
        if name == "torch" and version is None:
            raise metadata.PackageNotFoundError(name)
        return version if name == "torch" and version else real(name)

    monkeypatch.setattr(metadata, "version", look)
    told = found(check_packages())["torch"]
    assert (told.state, told.text, told.is_fatal) == (state, text, state != "ok")


def test_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {
        "figures": ["matplotlib>=3.8"],
        "theory": ["scipy>=1.11", "not-there>=0.2"],
        "new": ["not-there"],
        "old": ["numpy<1"],
    }
    lines = [f"{package}; extra == '{extra}'" for extra, listed in needs.items() for package in listed]
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch>=2.6", *lines])
    monkeypatch.setattr(metadata, "metadata", lambda name: type("M", (), {"get_all": lambda self, key: list(needs)})())
    told = found(check_extras())
    assert told["figures"].text == f"drawings of dop figure: matplotlib {metadata.version('matplotlib')}"
    assert told["theory"].state == "missing"
    assert told["theory"].text.endswith(': pip install "dop_lightning[theory]" (not-there)')
    assert (told["new"].state, told["new"].text) == ("missing", 'pip install "dop_lightning[new]"')
    assert told["old"].state == "problem"
    assert "<1 is required" in told["old"].text
    assert not any(finding.is_fatal for finding in told.values())


def test_extras_of_extras_and_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "Not_There[signatures, cli]<5,>=4.44",
        "old-python>=1; python_version < '3'",
        "numpy>=1 ; extra == 'figures' and python_version >= '3'",
        "old-python>=1 ; extra == 'figures' and python_version < '3'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    needed = found(check_packages())
    assert "old-python" not in needed
    assert needed["Not_There"].text == 'not installed: pip install "Not_There[cli,signatures]<5,>=4.44"'
    assert found(check_extras())["figures"].text == f"drawings of dop figure: numpy {metadata.version('numpy')}"


def test_unreadable_requirements_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "packaging"]:
        monkeypatch.delitem(sys.modules, name)
    break_import(monkeypatch, "packaging", ImportError("No module named 'packaging'"))
    told = found(check_packages())["packaging"]
    assert told.is_fatal
    assert told.text.startswith("broken: ImportError: No module named 'packaging'; the other packages")
    assert list(check_extras()) == []


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, dop) -> None:
    def look(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", look)
    monkeypatch.setattr(metadata, "version", look)
    assert [finding.state for finding in check_packages()] == ["ok", "problem"]
    assert list(check_extras()) == []
    assert "not installed" in dop("--version").out


def no_compiler() -> list[str]:
    raise RuntimeError("g++ was not found")


def old_gpu() -> hints.Gpus:
    return hints.Gpus(nvidia=True, torch="2.13.0+cpu")


def no_space(**_: Any) -> None:
    raise OSError(30, "Read-only file system")


@pytest.mark.parametrize(
    ("name", "patch", "state", "text"),
    [
        ("kernels", (compiled, "compiler", no_compiler), "missing", "g++ was not found; install g++; networks use"),
        ("kernels", (compiled, "library", lambda: None), "problem", "cannot be loaded"),
        ("GPU", (hints, "look", old_gpu), "problem", "is built for the CPU only"),
        ("cache", (tempfile, "NamedTemporaryFile", no_space), "problem", "(Read-only file system); set XDG_CACHE_HOME"),
        ("this folder", (tempfile, "NamedTemporaryFile", no_space), "problem", "pass another folder to --out"),
        ("memory", (machine, "MIN_MEMORY", 2**60), "problem", "small tiles"),
        ("this folder", (machine, "MIN_DISK", 2**60), "problem", "may not fit"),
    ],
)
def test_machine(
    name: str, patch: tuple[Any, str, Any], state: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "GPU" and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("there is a GPU")
    monkeypatch.setattr(*patch)
    told = found(check_machine())[name]
    assert told.state == state
    assert text in told.text
    assert not told.is_fatal


def test_too_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    told = found(check_machine())["threads"]
    assert told.state == "problem"
    assert "OMP_NUM_THREADS=1000" in told.text


def test_wrong_recovery_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LARGEST_ERROR", 1e-12)
    told = found(check_trial())["matrix"]
    assert (told.state, told.is_fatal) == ("problem", True)
    assert "expected at most 1e-12" in told.text


def test_the_trial_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [finding.state for finding in check_trial() if finding.name != "network, bf16"] == ["ok", "ok"]


def test_precision_without_bf16_units_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "this_processor", lambda: processor.Processor("x86_64", "AVX2"))
    told = found(check_machine())["processor"]
    assert told.state == "ok"
    assert "x86_64 with AVX2; networks run in fp32, since it has neither AMX nor AVX-512 BF16" in told.text


def test_compiler_of_kernels_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = tmp_path / "kernels-0.so"
    monkeypatch.setattr(compiled, "library", lambda: object())
    monkeypatch.setattr(compiled, "compiler", lambda: ["g++"])
    monkeypatch.setattr(compiled, "build", lambda folder: made)
    monkeypatch.setattr(processor, "this_processor", lambda: processor.Processor("aarch64"))
    assert found(check_machine())["kernels"].text == f"networks use compiled kernels: g++ -mcpu=native, {made}"
    made = tmp_path / "kernels-0-untuned.so"
    assert "g++ without tuning to this processor" in found(check_machine())["kernels"].text


@pytest.mark.parametrize(
    ("findings", "text"),
    [
        ([], "No problems found."),
        ([Finding("a", "b", "missing", "")], "No problems found."),
        ([Finding("a", "b", "problem", "")], "All essential parts work; see the problems of b."),
        ([Finding("a", "b", "missing", "", True)], "Broken: b. Fix this first; other checks may be wrong until then."),
    ],
)
def test_the_last_line(findings: list[Finding], text: str) -> None:
    assert doctor.verdict(findings) == text


def test_ctrl_c_ends_the_doctor() -> None:
    def interrupted() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt("a", "b", interrupted)
