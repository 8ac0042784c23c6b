"""The command that measures everything on a GPU, on the simulated device and on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.pretend_cuda import device
from tests.pretend_cuda.checks import ON_PRETENDED

SCRIPT = "measure_gpu"
SCRIPTS = Path(__file__).parents[2] / "scripts"
IMAGE = SCRIPTS.parent / "data" / "coffee.png"


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    command = ["sh", str(SCRIPTS / "measure_gpu.sh"), *map(str, arguments)]
    given = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=280, check=False)


class TestPretended:
    pytestmark = ON_PRETENDED

    def test_every_claim_is_tested(self, script: ModuleType, tmp_path: Path) -> None:
        done = run(IMAGE, tmp_path, "--dry", **device.environment(1))
        assert done.returncode == 0, done.stdout + done.stderr
        results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        rows = {(row["part"], row["claim"]): row for row in results["claims"]}
        assert list(rows) == [(claim.part, claim.name) for claim in script.CLAIMS]
        assert results["device"] == "Simulated GPU"
        for claim in script.CLAIMS:
            row = rows[claim.part, claim.name]
            assert row["verdict"] in ("PASS", "not measured"), row
            assert claim.bar is None or row["value"] >= 0  # the measurement was made
        assert {row["said"] for row in rows.values() if row["verdict"] == "not measured"} <= {
            "Triton's kernels need a GPU",
            "a graph was captured, but waits are only detected on a GPU",
            "this needs a GPU",
            "sizes are tiny",
        }

    def test_a_batch_that_does_not_fit(self, script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        claims = script.gpu_claims
        monkeypatch.setattr(claims, "less_memory", device.limited_memory)
        assert claims.halves_batch("cuda") == "half of the batch continues"


def setting(script: ModuleType, folder: Path, dry: bool = True) -> object:
    return script.Setting("cpu", IMAGE, folder, dry)


def claim(script: ModuleType, value: object, bar: object = None) -> object:
    def measure(_: object) -> object:
        if isinstance(value, Exception):
            raise value
        return value

    return script.Claim("images", "one", measure, bar)


def test_verdicts(script: ModuleType, tmp_path: Path) -> None:
    bar = script.Bar("≤", {"H200": 4.0, "H100": 5.0}, "ms")
    full, name = setting(script, tmp_path, dry=False), "NVIDIA H100 80GB HBM3"
    for value, on, expected in [
        (4.5, name, "PASS"),
        (4.5, "NVIDIA H200", "FAIL"),
        (5.5, name, "FAIL"),
        (float("nan"), name, "FAIL"),
        (0.1, "another", "not measured"),
        (script.Unmeasured("why"), name, "not measured"),
        (ValueError("why"), name, "FAIL"),
    ]:
        row = script.verdict(claim(script, value, bar), full, on)
        assert row["verdict"] == expected, row
        assert script.line(row).startswith(expected)
    assert script.verdict(claim(script, 4.5, script.Bar("≥", {"": 4.0}, "×")), full, name)["verdict"] == "PASS"
    assert script.verdict(claim(script, "seen"), full, name)["verdict"] == "PASS"
    assert script.verdict(claim(script, 0.1, bar), setting(script, tmp_path), name)["said"] == "sizes are tiny"


def test_part_that_times_out_has_failed(script: ModuleType, tmp_path: Path) -> None:
    given = setting(script, tmp_path)
    end = script.run_apart("matrices", given, 0.2)
    assert end == "not finished within 0.2 s"
    (row,) = script.rows_of("matrices", given, end)
    assert (row["verdict"], row["said"]) == ("FAIL", end)


@pytest.mark.slow
def test_each_part_has_a_process(script: ModuleType, tmp_path: Path) -> None:
    given = setting(script, tmp_path)
    assert script.run_apart("matrices", given, 200) == "the process ended with status 0"
    (row,) = script.rows_of("matrices", given, "")
    assert row["value"] > 0


def test_a_failed_claim_is_the_exit_status(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(script, "prepare", lambda: None)
    monkeypatch.setattr(sys, "argv", ["measure_gpu.py", str(IMAGE), str(tmp_path), "--dry", "--device", "cpu"])
    for value, status in ((ValueError("broken"), 1), ("fine", 0)):
        monkeypatch.setattr(script, "CLAIMS", [claim(script, value)])
        assert script.main() == status
    assert "FAIL         images: one: ValueError: broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("none.png", "out", "--dry"), "none.png does not exist"), ((IMAGE, "out", "--device", "cpu"), "cpu needs --dry")],
)
def test_wrong_arguments(
    arguments: tuple, said: str, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["measure_gpu.py", *map(str, arguments)])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert said in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.slow
def test_without_a_gpu(tmp_path: Path) -> None:
    done = run(IMAGE, tmp_path, DOP_PRETEND_CUDA="")
    assert done.returncode == 2
    assert "PyTorch finds no CUDA device; try --dry --device cpu" in done.stderr
