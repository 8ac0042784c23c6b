"""Runs that grow: new problems are recovered, and previous results stay the same, bit for bit."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dop_lightning.cli.experiments import runner
from dop_lightning.lightning.checkpoint_io import FolderCheckpointIO
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.runs.growth import KnownRun
from dop_lightning.runs.request import RunRequest
from dop_lightning.runs.results import read_metrics, read_results

CONFIGS = Path(__file__).parents[2] / "configs"
MATRICES = [
    "fit",
    "--config",
    str(CONFIGS / "matrix.yaml"),
    "--data.n",
    "12",
    "--data.rank",
    "1",
    "--model.tau",
    "2e-3",
]
MATRICES += ["--trainer.accelerator", "cpu", "--model.block", "50", "--model.evaluate_every", "100"]
NAME = "n12-r1-gross-outliers-0.3-seed{}"

SMALL_NETWORK = """
model:
  signal: {class_path: SkipUNet, init_args: {width: 2, scales: 2, input_channels: 2, precision: fp32}}
  corruption: {class_path: HadamardCorruption, init_args: {scale: 1.0e-5, tied: false}}
  loss: {class_path: SquaredLoss, init_args: {reduction: mean}}
  tau: 0.5
  alpha: 20.0
  block: 5
  evaluate_every: 5
trainer: {max_steps: 5, accelerator: cpu, default_root_dir: run}
"""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fit(dop, *options: object, run: str = "run", steps: int = 300, status: int = 0) -> str:
    """Run ``dop fit`` on matrices and return what it said on stderr."""
    said = dop(*MATRICES, "--trainer.default_root_dir", run, "--trainer.max_steps", str(steps), *map(str, options))
    assert said.status == status, said.err
    return said.err


def manifest(run: str = "run") -> dict:
    return json.loads(Path(run, "manifest.json").read_text())


def names(run: str = "run") -> list[str]:
    return [problem["name"] for problem in manifest(run)["problems"]]


def contents(*patterns: str) -> dict[Path, tuple[int, bytes]]:
    """When files were written, and their bytes."""
    paths = [path for pattern in patterns for path in Path().glob(pattern) if path.is_file()]
    assert paths
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def recovered(run: str, *problems: str) -> list[bytes]:
    return [Path(run, name, "recovered.npy").read_bytes() for name in problems]


def test_four_seeds_grow_to_six(dop) -> None:
    fit(dop, "--data.seeds", 4)
    before = contents("run/n12*/**/*", "run/checkpoints/last.ckpt/*", "run/checkpoints/curves/*")
    metrics = Path("run/metrics.csv").read_text()
    assert "Resuming the run in run, with 2 new problems\n" in fit(dop, "--data.seeds", 6)
    assert contents(*map(str, before)) == before
    assert Path("run/metrics.csv").read_text().startswith(metrics)
    assert names() == [NAME.format(seed) for seed in range(6)]
    assert manifest()["batches"] == [names()[:4], names()[4:]]
    table = Path("run/results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table[1:]] == names()
    fit(dop, "--data.seeds", "[4, 5]", run="new")  # one batch, as in the run that has grown
    assert recovered("run", *names()[4:]) == recovered("new", *names()[4:])
    assert "2 problems" not in fit(dop, "--data.seeds", 6)  # nothing is left to do
    assert dop("validate", "--config", "run/config.yaml").out.count("done") == 6
    assert dop("predict", "--config", "run/config.yaml").status == 0
    assert recovered("run", *names()[4:]) == recovered("new", *names()[4:])


def test_a_run_that_was_interrupted_grows(dop, stop_at, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(dop, "--data.seeds", 3, run="undisturbed")
    fit(dop, "--data.seeds", "[3, 4]", run="new")
    start = DoubleOverparameterization.on_train_start

    def interrupted_at(iteration: int) -> Callable:
        def on_train_start(module: DoubleOverparameterization) -> None:
            start(module)
            module.trainer.callbacks.append(stop_at(iteration, signal.SIGTERM))

        return on_train_start

    with monkeypatch.context() as patch:
        patch.setattr(DoubleOverparameterization, "on_train_start", interrupted_at(150))
        fit(dop, "--data.seeds", 3, status=143)
        patch.setattr(DoubleOverparameterization, "on_train_start", interrupted_at(100))  # of those that are new
        fit(dop, "--data.seeds", 5, status=143)
    assert [result["iterations"] for result in read_results(Path("run"))] == [150, 150, 150, 100, 100]
    fit(dop, "--data.seeds", 5)
    old, new = names()[:3], names()[3:]
    assert recovered("run", *old) == recovered("undisturbed", *old)
    assert recovered("run", *new) == recovered("new", *new)
    curves = {name: [row for row in read_metrics(Path("run")) if row.problem == name] for name in names()}
    expected = [row for run in ("undisturbed", "new") for row in read_metrics(Path(run))]
    assert curves == {name: [row for row in expected if row.problem == name] for name in names()}


def test_start_with_outdated_knowledge_of_the_folder_is_refused(dop, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, others = runner.claim, [3]

    def claim_early(run: Path, request: RunRequest) -> KnownRun | None:
        known = claim(run, request)
        if others:
            fit(dop, "--data.seeds", others.pop())
        return known

    monkeypatch.setattr(runner, "claim", claim_early)
    assert "run: another process used this folder in the meantime; start again" in fit(dop, status=2)
    assert names() == [NAME.format(seed) for seed in range(3)]  # those of the other start


def test_continued_problems_are_not_mistaken_for_new_ones(dop) -> None:
    """More iterations and more problems at once; then a larger batch than before, which old problems do not join."""
    fit(dop, "--data.seeds", 2, "--data.batch_size", 1, steps=200)
    fit(dop, "--data.seeds", 4, "--data.batch_size", 2, steps=300)
    assert manifest()["batches"] == [[names()[0]], [names()[1]], names()[2:]]
    fit(dop, "--data.seeds", 2, "--data.batch_size", 1, run="undisturbed")
    assert recovered("run", *names()[:2]) == recovered("undisturbed", *names()[:2])
    saved = FolderCheckpointIO().load_checkpoint("run/checkpoints/last.ckpt")["problems"]
    assert {name: problem["iteration"] for name, problem in saved.items()} == dict.fromkeys(names(), 300)


def test_lists_of_rates_follow_their_problems(dop) -> None:
    fit(dop, "--data.n", "[10, 12]", "--data.seeds", 2, "--model.alpha", "[2, 3, 4, 5]", "--model.tau", "2e-3")
    before = {result["problem"]: result["alpha"] for result in read_results(Path("run"))}
    arguments = ["--data.n", "[10, 12]", "--data.seeds", 3, "--model.tau", "2e-3", "--model.alpha"]
    err = fit(dop, *arguments, "[2, 3, 4, 5, 6, 7]", status=2)
    assert "model.alpha of n12-r1-gross-outliers-0.3-seed0: 4.0 in the run, 5.0 given, model.alpha of n12" in err
    assert "must be one number, or one per problem (6), got 4 numbers" in fit(dop, *arguments, "[2, 3, 4, 5]", status=2)
    fit(dop, *arguments, "[2, 3, 6, 4, 5, 7]")
    after = {result["problem"]: result["alpha"] for result in read_results(Path("run"))}
    assert list(after.values()) == [2, 3, 6, 4, 5, 7]
    assert {name: after[name] for name in before} == before
    taus = ["--data.n", "[10, 12]", "--data.seeds", 3, "--model.alpha", "[2, 3, 6, 4, 5, 7]", "--model.tau"]
    fit(dop, *taus, f"[{', '.join(['0.002'] * 6)}]")  # the same rates, written as a list
    assert "holds another run (model.tau: 0.002 in the run, 0.001 given)" in fit(dop, *taus, "1e-3", status=2)


def test_a_smaller_list_is_refused(dop) -> None:
    noises = [{"class_path": "GrossOutliers", "init_args": {"ratio": ratio}} for ratio in (0.1, 0.2)]
    Path("noises.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"noise": noises}}}))
    Path("noise.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"noise": noises[1]}}}))
    fit(dop, "--config", "noises.yaml", "--data.seeds", 3)
    before = contents("run/**/*")
    for options, reason in (
        (
            ["--config", "noises.yaml", "--data.seeds", 2],
            "holds problems that are not given: n12-r1-gross-outliers-0.1-seed2, n12-r1-gross-outliers-0.2-seed2 "
            "(data.seeds: 3 in the run, 2 given); specify them as well, or choose another folder",
        ),
        (["--config", "noise.yaml", "--data.seeds", 3], "n12-r1-gross-outliers-0.1-seed1, n12-r1-gross-outliers-0.1-"),
        (["--config", "noises.yaml", "--data.seeds", "[7]"], "holds another run (data.seeds: 3 in the run, [7] given)"),
        (
            ["--config", "noises.yaml", "--data.seeds", 4, "--data.dtype", "float64"],
            "holds another run (data.dtype: float32 in the run, float64 given)",
        ),
        (
            ["--config", "noises.yaml", "--data.seeds", 4, "--model.signal.scale", "1e-3"],
            "holds another run (model.signal.scale: 0.0001 in the run, 0.001 given)",
        ),
    ):
        err = fit(dop, *options, status=2)
        assert reason in err
        assert err.count("\n") == 1
    assert contents("run/**/*") == before


def photo(path: str, seed: int = 0, side: int = 16) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def fit_images(dop, images: list[str], *options: object, status: int = 0) -> str:
    if not Path("network.yaml").exists():
        Path("network.yaml").write_text(SMALL_NETWORK)
    data = ["--data", "ImageDataModule", "--data.images", json.dumps(images)]
    said = dop("fit", "--config", "network.yaml", *data, *map(str, options))
    assert said.status == status, said.err
    return said.err


def test_one_seed_of_a_file_grows_to_three(dop) -> None:
    photo("a/photo.png")
    fit_images(dop, ["a/photo.png"])
    before = contents("run/photo/**/*")
    fit_images(dop, ["a/photo.png"], "--data.seeds", 3)
    assert names() == ["photo", "photo-seed1", "photo-seed2"]
    assert contents(*map(str, before)) == before
    assert dop("validate", "--config", "run/config.yaml").out.count("photo") == 3
    # the names of a run hold, whatever a new run would call its problems
    fit_images(dop, ["a/photo.png"], "--data.seeds", "[2, 0, 1]")
    assert names() == ["photo-seed2", "photo", "photo-seed1"]
    noise = ["--data.noise", "[{class_path: NoNoise}, {class_path: SaltAndPepper, init_args: {ratio: 0.5}}]"]
    fit_images(dop, ["a/photo.png"], "--data.seeds", 3, *noise)
    salt = [f"photo-salt-and-pepper-0.5-seed{seed}" for seed in range(3)]
    assert names() == ["photo", "photo-seed1", "photo-seed2", *salt]


def test_second_image_of_the_same_name_can_be_listed_first(dop) -> None:
    photo("b/photo.png")
    fit_images(dop, ["b/photo.png"])
    before = contents("run/photo/**/*")
    photo("a/photo.png", seed=1)
    fit_images(dop, ["a/photo.png", "b/photo.png"])
    assert names() == ["photo-2", "photo"]
    assert contents(*map(str, before)) == before
    shutil.copy("a/photo.png", "c.png")
    err = fit_images(dop, ["c.png", "b/photo.png"], status=2)
    assert "run: holds problems that are not given: photo-2 (data.images: [" in err
    photo("b/photo.png", seed=2)
    err = fit_images(dop, ["a/photo.png", "b/photo.png"], status=2)
    assert "run: the data of photo have changed since the run was started (b/photo.png); restore them, or" in err


def test_tiles_of_an_image_stay_together(dop) -> None:
    tiles = ["--data.tile", 16, "--data.overlap", 0, "--data.batch_size", 8]
    photo("photo.png", side=32)
    fit_images(dop, ["photo.png"], *tiles)
    before = contents("run/photo/**/*", "run/checkpoints/last.ckpt/*")
    photo("a/photo.png", side=32, seed=1)
    photo("photo-r0-c0.png")
    fit_images(dop, ["a/photo.png", "photo.png", "photo-r0-c0.png"], *tiles)
    assert contents(*map(str, before)) == before
    listed = {problem["name"]: problem.get("tiles") for problem in manifest()["problems"]}
    corners = ["r0-c0", "r0-c1", "r1-c0", "r1-c1"]
    assert listed == {
        "photo-2": [f"photo-2-{corner}" for corner in corners],
        "photo": [f"photo-{corner}" for corner in corners],
        "photo-r0-c0-2": None,  # a tile of the run has the name of the file
    }
    assert manifest()["batches"] == [listed["photo"], [*listed["photo-2"], "photo-r0-c0-2"]]
    err = fit_images(dop, ["a/photo.png", "photo.png", "photo-r0-c0.png"], "--data.batch_size", 8, status=2)
    assert "holds another run (data.tile: 16 in the run, null given, data.overlap: 0 in the run, null given)" in err


@pytest.mark.slow
def test_two_processes_share_new_problems(dop) -> None:
    fit(dop, "--data.seeds", 2)
    before = contents("run/n12*/**/*", "run/checkpoints/last.ckpt/*")
    err = fit(dop, "--data.seeds", 6, "--data.batch_size", 2, "--trainer.devices", 2)
    assert "6 problems in 3 batches on this process and 1 more" in err
    assert contents(*map(str, before)) == before
    fit(dop, "--data.seeds", "[2, 3, 4, 5]", "--data.batch_size", 2, run="new")
    assert recovered("run", *names()[2:]) == recovered("new", *names()[2:])
    assert len(Path("run/results.csv").read_text().splitlines()) == 7


def test_a_sweep_grows(dop) -> None:
    arguments = ["sweep", *MATRICES[1:], "--trainer.max_steps", "100", "--axis", "model.alpha=2,4", "--out", "grid"]
    arguments += ["--cluster", "debug", "--data.seeds"]
    assert dop(*arguments, "1").status == 0
    before = contents("grid/*/n12*seed0/**/*")
    said = dop(*arguments, "2")
    assert (said.status, said.out.splitlines()[0]) == (0, "2 points: 2 changed")
    assert contents(*map(str, before)) == before
    assert len(list(Path("grid").glob("*/n12*/result.json"))) == 4
    assert "2 finished" in dop(*arguments, "2").out
