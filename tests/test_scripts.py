"""Scripts that check the package, run at a small scale."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(name: str, *arguments: str) -> str:
    """What a script prints."""
    command = [sys.executable, str(SCRIPTS / name), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_a_photograph_of_1500_by_1000_pixels_is_recovered_by_tiles_within_8_gib(tmp_path: Path) -> None:
    said = run("recover_large.py", "--iterations", "1", "--tile", "512", "--out", str(tmp_path))
    peak = re.search(r"peak memory (\S+) GiB", said)
    assert peak is not None
    assert float(peak[1]) < 8
    assert len(re.findall(r"^(?:error|steps) .* 0\.\d+  0\.\d+  ratio \d\.\d+$", said, re.MULTILINE)) == 3


def test_damaged_files_are_refused_or_recovered() -> None:
    said = run("fuzz_images.py", "--files", "46", "--seed", "1")
    assert said.startswith("46 files in ")
    assert said.endswith("; 0 went wrong\n")


def test_robust_pca_is_timed_against_convex_solvers_and_tensorly() -> None:
    said = run("benchmark_robust_pca.py", "--sizes", "100", "--rounds", "1", "--limit", "3")
    for name in (
        "DOP, semi-implicit",
        "DOP, Nesterov",
        "IALM, partial SVD",
        "IALM, full SVD",
        "APG, full SVD",
        "TensorLy",
    ):
        assert re.search(rf"^{name}.*\d\.\d", said, re.MULTILINE), said
    assert re.search(r"in the time that IALM .* takes to 1e-6 it is at \d", said)


def test_step_rules_are_compared() -> None:
    said = run("compare_steps.py", "--seeds", "1", "--time", "0.05")
    assert len(re.findall(r"^(?:truth|small steps): .*\d$", said, re.MULTILINE)) == 10


def test_memory_of_matrices_is_measured() -> None:
    said = run("measure_matrix_memory.py", "--n", "200", "--rank", "4", "--rules", "SemiImplicit", "--allowed", "1e6")
    assert re.search(r"SemiImplicit +\d+ MiB +\d+\.\d\d arrays", said)
