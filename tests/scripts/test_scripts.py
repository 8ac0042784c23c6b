"""Scripts that check the package, run at a small scale."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dop_lightning.foundation.native import library
from tests.suites.warm import warm_python

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(name: str, *arguments: str) -> str:
    """Return the output of a script."""
    process = warm_python().run(SCRIPTS / name, *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def run_cold(name: str, *arguments: str) -> str:
    """Return the output of a script that measures the imports or the memory of its process."""
    command = [sys.executable, str(SCRIPTS / name), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.slow
def test_a_photograph_of_1500_by_1000_pixels_is_recovered_by_tiles_within_8_gib(tmp_path: Path) -> None:
    said = run_cold("recover_large.py", "--iterations", "1", "--tile", "512", "--out", str(tmp_path))
    peak = re.search(r"peak memory (\S+) GiB", said)
    assert peak is not None
    assert float(peak[1]) < 8
    assert len(re.findall(r"^(?:error|steps) .* 0\.\d+  0\.\d+  ratio \d\.\d+$", said, re.MULTILINE)) == 3


@pytest.mark.slow
def test_a_photograph_of_any_size_is_measured(tmp_path: Path) -> None:
    said = run("measure_large.py", "--size", "80", "60", "--damage", "hot", "--out", str(tmp_path))
    assert re.search(r"^80×60, hot, instant: exit status 0$", said, re.MULTILINE)
    assert re.search(r"^\d+\.\d s, CPU time \d+\.\d s, peak memory 0\.\d\d GiB, load", said, re.MULTILINE)
    assert re.search(r"^PSNR \d+\.\d\d dB$", said, re.MULTILINE)


@pytest.mark.slow
def test_damaged_files_are_refused_or_recovered() -> None:
    said = run("fuzz_images.py", "--files", "46", "--seed", "1")
    assert said.startswith("46 files in ")
    assert said.endswith("; 0 failed\n")


@pytest.mark.slow
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
    assert re.search(r"error \d\S+ when IALM .* reaches 1e-6$", said, re.MULTILINE)


@pytest.mark.slow
def test_step_rules_are_compared() -> None:
    said = run("compare_steps.py", "--seeds", "1", "--time", "0.05")
    assert len(re.findall(r"^(?:truth|small steps): .*\d$", said, re.MULTILINE)) == 10


@pytest.mark.slow
def test_memory_of_matrices_is_measured() -> None:
    small = ("--n", "200", "--allowed", "1e6")
    said = run_cold("measure_matrix_memory.py", *small, "--rank", "4", "--rules", "SemiImplicit")
    assert re.search(r"SemiImplicit +\d+ MiB +\d+\.\d\d arrays", said)
    said = run_cold("measure_matrix_memory.py", "--command", *small)
    found = re.match(r"dop separate, n = 200: (\d+) MiB beyond imports, (-?\d+) MiB beyond libraries, ", said)
    assert found is not None, said
    assert int(found[1]) > int(found[2]), "the command imports libraries"
    assert "alternating projections, rank 10" in said


@pytest.mark.slow
def test_the_stop_of_refinement_is_compared() -> None:
    small = ("--size", "16", "--width", "2", "--seeds", "0", "--iterations", "110", "--every", "10")
    said = run("compare_stopping.py", "--noise", "both", "--method", "refine", *small)
    assert re.search(r"^held-out error +\d+\.\d\d \(110…\) +-?\d\.\d\d$", said, re.M), said


@pytest.mark.slow
def test_stopping_rules_are_compared() -> None:
    said = run("compare_stopping.py", "--size", "16", "--width", "2", "--seeds", "1", "--iterations", "110")
    assert (
        len(re.findall(r"^(?:best|last|windowed .*|exponential .*) +\d+\.\d\d \(\d+…?\) +\d\.\d\d$", said, re.M)) == 6
    )


def test_operators_are_compared(tmp_path: Path) -> None:
    (tmp_path / "larger.yaml").write_text("model:\n  alpha: 20\n", encoding="utf-8")
    small = ["--size", "16", "--width", "4", "--iterations", "4", "--every", "2", "--out", str(tmp_path / "runs")]
    said = run("compare_operators.py", *small, "--config", f"alpha 20={tmp_path / 'larger.yaml'}")
    for case in ("2x super-resolution", "known blur"):
        assert re.search(rf"^{case} +no corruption, oracle stop +\d.* \+0\.00 ", said, re.MULTILINE), said
        assert len(re.findall(rf"^{case} +(?:DOP|alpha 20) +\d+\.\d\d .* [+-]\d\.\d\d ", said, re.MULTILINE)) == 2, said


@pytest.mark.skipif(library() is None, reason="needs a C++ compiler")
def test_noise_is_timed_by_both_generators() -> None:
    said = run("benchmark_noise.py", "--sides", "16", "--rounds", "2")
    assert re.search(r"\n\| 16 \| [\d.]+ \| [\d.]+ \| [\d.]+ \|\n", said)


@pytest.mark.skipif(library() is None, reason="needs a C++ compiler")
def test_steps_of_muon_are_timed() -> None:
    said = run("benchmark_muon.py", "--widths", "4", "--rounds", "2")
    assert re.search(r"\n\| 4 \|(?: [\d.e+-]+ \|){5}\n", said), said


@pytest.mark.slow
def test_ways_to_convolve_are_timed() -> None:
    said = run("benchmark_convolution.py", "--sizes", "32", "--taps", "5", "--rounds", "1")
    assert re.search(r"^ +32 +5×5 (?: +\d+\.\d\d){6}$", said, re.MULTILINE), said


@pytest.mark.slow
def test_images_are_timed_against_plain_code(tmp_path: Path) -> None:
    small = ("--sizes", "64:4", "--precision", "fp32", "--rounds", "1", "--iterations", "40", "--batch", "2")
    said = run("benchmark_images.py", *small, "--memory", "96:4", "--batch-size", "64:2", "--out", str(tmp_path))
    assert re.search(r"^64×64, width 4, fp32 +\d+\.\d\d ms +\d+\.\d\d ms +\d+\.\d\d  -", said, re.MULTILINE), said
    assert re.search(r"^2 of 64×64, width 2, fp32 +\d+\.\d\d ms +\d+\.\d\d ms +\d+\.\d\d", said, re.MULTILINE), said
    assert re.search(r"^memory 96×96, width 4, fp32 +\d+ MiB +\d+ MiB +\d+\.\d\d", said, re.MULTILINE), said
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["kept"] for row in rows] == [True, True, True]


@pytest.mark.slow
def test_strips_are_timed() -> None:
    said = run("benchmark_strips.py", "--sizes", "64:8", "--rounds", "1")
    assert re.search(r"^\| 64×64, 8 \| \d+\.\d ms \| \d+\.\d ms \| 1 \|$", said, re.MULTILINE), said


def test_clean_images_are_measured_once(tmp_path: Path) -> None:
    few = ("--out", str(tmp_path / "harm.csv"), "--images", "silhouette", "--size", "48", "--iterations", "4")
    said = run("measure_clean_images.py", *few)
    assert re.search(
        r"^\| quick, 48 \| silhouette \| unchanged \| \d+\.\d \| (\d+\.\d|unchanged) \|$", said, re.MULTILINE
    ), said
    assert run("measure_clean_images.py", *few) == said
    assert (tmp_path / "harm.csv").read_text().count("\n") == 2


@pytest.mark.slow
def test_estimator_is_timed_with_its_solver() -> None:
    said = run("benchmark_estimator.py", "--sizes", "60", "--noise", "0")
    assert re.search(r"^\| 60 \| 0 \| \d+\.\d+ \| \d+\.\d+ \| \d+\.\d+ \| \de-\d+ \|$", said, re.MULTILINE), said


def test_tiles_are_timed() -> None:
    small = ("--tile", "16", "--whole", "32", "--preset", "quick", "--iterations", "2", "--rounds", "1")
    said = run("benchmark_tiles.py", *small)
    assert len(re.findall(r"^(?:tiles|whole) .* +\d+\.\d +\d+\.\d\d$", said, re.MULTILINE)) == 4, said


@pytest.mark.slow
def test_a_recovery_beside_busy_processes_is_timed() -> None:
    said = run("benchmark_busy_machine.py", "--size", "16", "--iterations", "1", "--busy", "0", "--threads", "1")
    assert re.fullmatch(r"threads 1: used 1, \d+\.\d s with 0 busy processes, 1\.00 times the first\n", said), said


@pytest.mark.slow
def test_compare_instant_prints_differences(tmp_path: Path) -> None:
    small = ("--images", "astronaut", "--sizes", "32", "--cases", "hot")
    before = str(tmp_path / "before.json")
    assert "| hot | 0.5 % | 32 |" in run("compare_instant.py", *small, "--save", before)
    assert "| +0.000 | +0.000 | +0.000 | +0.000 |" in run("compare_instant.py", *small, "--before", before)


@pytest.mark.slow
def test_small_pictures_are_timed() -> None:
    said = run("benchmark_small_images.py", "--count", "2", "--presets", "quick")
    assert re.search(r"^quick: 2 pictures of 12×12 in \d+\.\d s, \d+\.\d s of processor time; ", said), said


@pytest.mark.slow
def test_killed_processes_leave_resumable_runs() -> None:
    said = run("kill_runs.py", "chaos", "--times", "2", "--cases", "matrices", "--iterations", "3000", "--ranks", "2")
    assert len(re.findall(r"^ +\d  2 processes, (?:kill|stop) +ranks \d at .*: equal$", said, re.MULTILINE)) == 2, said
    assert "tracebacks: 0" in said


@pytest.mark.slow
def test_signals_are_timed(tmp_path: Path) -> None:
    small = ("--cases", "separate-mapped", "fit", "--size", "64", "--moments", "2", "--most", "60")
    said = run("time_interrupts.py", "--out", str(tmp_path / "out"), *small)
    assert (
        len(re.findall(r"^\| (?:separate-mapped|fit) \|(?: \d+(?:\.\d)? \|){4} equal \|$", said, re.MULTILINE)) == 2
    ), said


def test_measure_damage_scores_the_detection_of_lines(tmp_path: Path) -> None:
    few = ["--kinds", "lines 1.0", "rectangles colour", "--photographs", "coffee", "--side", "128"]
    said = run("measure_damage.py", "--out", str(tmp_path), *few).splitlines()
    assert said[1].split()[-1] == "0.000"
    assert said[6].split()[-1] == "none"
    assert min(float(line.split()[-1]) for line in said[7:]) > 0.9
    assert (tmp_path / "results.csv").read_text().count("\n") == 8


def test_the_figure_of_creases_is_drawn(tmp_path: Path) -> None:
    file = tmp_path / "creases.png"
    said = run("draw_creases.py", "--out", str(file), "--iterations", "1")
    assert re.search(r"^\d+\.\d\d dB with creases, \d+\.\d\d dB restored$", said, re.MULTILINE), said
    assert file.stat().st_size > 1000


def test_alpha_is_measured(tmp_path: Path) -> None:
    small = ("--sizes", "16", "--widths", "2", "--levels", "0.5", "--images", "camera", "--iterations", "20")
    said = run("measure_alpha.py", "--out", str(tmp_path), *small, "--alphas", "30")
    assert re.search(r"^ +16 +2 +0\.5 +\d+\.\d\d +\d+\.\d\d +\d\.\d\d +\d\.\d\d$", said, re.MULTILINE), said


def test_the_published_curve_is_compared(tmp_path: Path) -> None:
    photo = SCRIPTS.parent / "data" / "coffee.png"
    small = ("--resize", "16", "--width", "2", "--iterations", "8", "--preset-iterations", "6")
    said = run("reproduce_f16.py", "--image", str(photo), "--out", str(tmp_path), "--accelerator", "cpu", *small)
    assert re.search(r"^default: \d+\.\d\d dB \(done, 6 iterations, ", said, re.MULTILINE), said
    assert re.search(r"^paper: \d+\.\d\d dB at 8 of 8 iterations$", said, re.MULTILINE), said


@pytest.mark.slow
def test_iterations_are_compared_and_runs_resume(tmp_path: Path) -> None:
    curves = tmp_path / "curves.csv"
    small = ("--out", str(curves), "--size", "32", "--width", "2", "--every", "5", "--seeds", "0", "1")
    names = ("reference", "adam", "default-fp32", "adam-cosine", "muon-coarse", "muon-calm-square", "hyperbolic")
    said = run("compare_iterations.py", *small, "--iterations", "10", "--candidates", *names)
    number, spread = r"-?\d+(?:\.\d+)?", r"\d+\.\d\d ± \d+\.\d\d"
    for name in names:
        reached = r"(?:>?\d+(?:\.\d)? \| ){4}"
        assert re.search(rf"^\| {name} \| {reached}\d+ \| {number} \| {spread} \| .*\| 2 \|$", said, re.M), said
    before = curves.read_text(encoding="utf-8")
    assert len(before.splitlines()) == 1 + 2 * 2 * len(names)
    assert (
        run("compare_iterations.py", *small, "--iterations", "10", "--candidates", *names) == said
    )  # nothing is run again
    assert curves.read_text(encoding="utf-8") == before


def test_candidates_are_listed() -> None:
    said = run("compare_iterations.py", "--list")
    assert re.search(r"^reference +3500 +the paper's: ", said, re.M), said


@pytest.mark.slow
def test_a_killed_run_is_finished_by_the_same_command() -> None:
    said = run("kill_runs.py", "kill", "--times", "1", "--cases", "matrices", "--iterations", "4000")
    assert said.count("equal") == 2
    assert "UNEQUAL" not in said


@pytest.mark.slow
def test_run_resumes_with_another_number_of_processes() -> None:
    said = run("kill_runs.py", "resize", "--cases", "matrices", "--iterations", "12000")
    assert said.count("equal") == 2
    assert "UNEQUAL" not in said


@pytest.mark.slow
def test_runs_survive_faults_of_disks_and_files() -> None:
    try:
        said = run("inject_faults.py", "--places", "3", "--iterations", "10000")
    except AssertionError as error:
        if "permission denied" in str(error).lower() or "not permitted" in str(error).lower():
            pytest.skip("file systems cannot be mounted here")
        raise
    assert "cut at 3 places: 3 times named" in said


@pytest.mark.slow
def test_a_grid_is_timed() -> None:
    small = ["--size", "16", "--width", "4", "--iterations", "40", "--problems", "20", "--parts", "start", "machinery"]
    command = [sys.executable, str(SCRIPTS / "benchmark_grid.py"), *small]
    process = subprocess.run(command, capture_output=True, text=True, timeout=280)  # so small, it is above its bar
    assert re.search(r"20 robust PCA problems: first evaluation \d", process.stdout), process.stderr
    assert re.search(r"^machinery: .* [+-]\d+\.\d% ", process.stdout, re.MULTILINE), process.stdout


@pytest.mark.slow
def test_the_time_of_a_grid_is_predicted() -> None:
    small = [
        "--width",
        "4",
        "--sizes",
        "16",
        "--n",
        "12",
        "--batch",
        "3",
        "--grid",
        "3",
        "4",
        "--matrix-grid",
        "3",
        "4",
    ]
    said = run("measure_scaling.py", *small, "--devices", "1")
    assert len(re.findall(r"1 devices: predicted \d+\.\d s, took \d+\.\d s", said)) == 2


@pytest.mark.slow
def test_the_estimator_is_compared_with_pca() -> None:
    said = run("compare_digits.py", "--seeds", "1", "--rows", "400")
    gain = re.search(r"RobustPCA \S+ \((\S+);", said)
    assert gain is not None
    assert float(gain[1]) > 5


@pytest.mark.slow
def test_scenes_are_compared_and_long_ones_separated(tmp_path: Path) -> None:
    said = run("compare_scenes.py", "long", "--frames", "12", "--size", "24", "32", "--out", str(tmp_path))
    assert re.search(r"12 frames of 32×24 in colour .*: \d+ s, \d+\.\d+ GiB", said)
    assert re.search(r"background against the truth: \d+\.\d dB", said)
    said = run("compare_scenes.py", "compare", str(tmp_path / "room.mp4"))
    assert len(re.findall(r" s  error \d\.\d{4}  largest change", said)) == 3


@pytest.mark.slow
def test_masks_of_a_synthetic_scene_beat_the_median_frame() -> None:
    pytest.importorskip("cv2")
    said = run("compare_scenes.py", "masks", "--seeds", "1", "--size", "72", "96")
    scores = [float(score) for score in said.splitlines()[-1].split()]
    dop, _, median_best, median_same = scores[1:5]
    assert dop >= 0.9
    assert max(median_best, median_same) < 0.7


def test_scenes_with_known_masks_are_generated(tmp_path: Path) -> None:
    small = ("--frames", "150", "--size", "24", "32", "--seed", "3")
    pictures = {}
    for name, options in (("a", ()), ("b", ()), ("still", ("--still-light", "--still-leaves"))):
        said = run("synthetic_scenes.py", str(tmp_path / name), *small, *options)
        assert re.search(r"150 frames, objects cover \d+\.\d%$", said, re.MULTILINE)
        files = {kind: sorted((tmp_path / name / kind).iterdir()) for kind in ("frames", "masks")}
        pictures[name] = {kind: np.stack([np.array(Image.open(file)) for file in files[kind]]) for kind in files}
    assert pictures["a"]["frames"].shape == (150, 24, 32, 3)
    for kind in ("frames", "masks"):
        assert np.array_equal(pictures["a"][kind], pictures["b"][kind]), "equal seeds make equal scenes"
    assert np.array_equal(pictures["a"]["masks"], pictures["still"]["masks"])
    background = pictures["a"]["masks"].mean(axis=0) < 0.01 * 255
    spread = {name: pictures[name]["frames"].std(axis=0)[background].mean() for name in ("a", "still")}
    assert 1.5 * spread["still"] < spread["a"]


@pytest.mark.slow
def test_sweep_is_timed_and_equals_separate_processes() -> None:
    said = run("benchmark_sweep.py", "--points", "2", "--alone", "1", "--jobs", "1", "--limit", "200")
    assert re.search(r"^sweep, 1 at a time: \d+\.\d s for 2 points .*; 1 of 1 equal bit for bit$", said, re.M), said


def test_flipped_bits_are_found() -> None:
    assert "matrices: 8 flips, 0 missed" in run("flip_bits.py", "--times", "8")


def test_costs_of_ranks_are_modelled() -> None:
    said = run("measure_distributed_matrix.py", "--paper", "1000", "500", "5", "4")
    assert "1000×500, rank 5, 4 ranks: 0.00 GiB of D" in said
    assert re.search(r"\d+\.\d+ ms of work and \d+\.\d+ ms of communication", said)
