"""The command ``dop``, in this process if possible, otherwise in a subprocess."""

import argparse
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dop_lightning.cli.experiments.help import PAGES, page
from dop_lightning.cli.experiments.lightning_cli import REFUSED, TRAINER_DEFAULTS
from dop_lightning.cli.main import VERBS, main
from dop_lightning.cli.ray_options import add_ray_options
from dop_lightning.engine import convex, rivals, steps
from dop_lightning.lightning import data as dop_data
from dop_lightning.lightning.callbacks import IterationProgress, RecoveredFiles
from dop_lightning.lightning.data import ImageDataModule, MatrixDataModule, SceneDataModule, VectorDataModule
from dop_lightning.model import corruption, signals
from dop_lightning.model import losses as objective

BASE = {
    "model": {"tau": 2e-3, "block": 50, "evaluate_every": 100},
    "data": {
        "class_path": "MatrixDataModule",
        "init_args": {
            "n": 12,
            "rank": 1,
            "seeds": 2,
            "noise": {"class_path": "dop_lightning.problems.noise.GrossOutliers", "init_args": {"ratio": 0.1}},
        },
    },
    "trainer": {"max_steps": 300, "default_root_dir": "out", "accelerator": "cpu"},
}
FIT = ["fit", "--config", "base.yaml"]
RECOVER = ["recover", "grey.png", "--out", "out", "--width", "4", "--iterations", "3", "--device", "cpu"]
PROBLEM = "n12-r1-gross-outliers-0.1-seed0"


def save(path: str, *shape: int, seed: int = 0) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: configs, images, and files that are something else."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(yaml.safe_dump(BASE))
    Path("broken.yaml").write_text("model: {tau: [1\n")
    Path("list.yaml").write_text("- 1\n- 2\n")
    Path("dangling.yaml").write_text("model: {tau: '${model.nothing}'}\n")
    save("grey.png", 37, 51)
    save("rgb.png", 37, 51, 3)
    Path("text.png").write_text("hello")
    Path("empty").mkdir()
    return tmp_path


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def result(run: str, problem: str) -> dict[str, Any]:
    return json.loads((Path(run) / problem / "result.json").read_text())


# -------------------------------------------------------------------------------------------------------------- at once


@pytest.mark.parametrize(
    "how", [["-c", "from dop_lightning.cli.main import main; main(['--help'])"], ["-m", "dop_lightning"]]
)
def test_help_avoids_heavy_imports(how: list[str], tmp_path: Path) -> None:
    probe = "import atexit, sys; atexit.register(lambda: print('heavy' if 'torch' in sys.modules else 'light'))"
    (tmp_path / "sitecustomize.py").write_text(probe)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    process = subprocess.run(
        [sys.executable, *how], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert process.stdout.startswith("usage: dop VERB")
    assert process.stdout.splitlines()[-1] == "light"
    assert process.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_all_verbs(arguments: list[str], dop) -> None:
    said = dop(*arguments)
    assert said.status == 0
    assert all(f"\n  {verb} " in said.out for verb in VERBS)


def test_version(dop) -> None:
    assert dop("--version").out.startswith("dop_lightning ")


@pytest.mark.parametrize(("typed", "meant"), [("fitt", "fit"), ("recovr", "recover"), ("predic", "predict")])
def test_a_verb_that_is_close_is_suggested(typed: str, meant: str, dop) -> None:
    said = dop(typed)
    assert said.status == 2
    assert said.err == f"dop: error: no verb {typed!r}; did you mean {meant}? (dop --help lists them)\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["photo.PNG"], "dop recover photo.PNG --out restored"),
        (["my photo.jpeg", "--out", "x"], "dop recover 'my photo.jpeg' --out restored"),
        (["a.yaml"], "dop fit --config a.yaml"),
        (["--config", "a.yaml"], "dop fit --config …"),
        (["--config=a.yaml"], "dop fit --config=a.yaml"),
        (["empty"], "dop recover empty --out restored"),
        (["run"], "dop table run"),
        (["--hlep"], "dop --help"),
        (["--versoin"], "dop --version"),
        (["help", "fitt"], "fit"),
    ],
)
def test_arguments_without_a_verb_are_explained(typed: list[str], meant: str, folder: Path, dop) -> None:
    Path("run").mkdir()
    Path("run/manifest.json").write_text("{}")
    said = dop(*typed)
    assert said.status == 2
    assert f"; did you mean {meant}? (" in said.err
    assert said.err.count("\n") == 1


def test_non_utf8_argument_is_reported(folder: Path, dop) -> None:
    said = dop("recover", "grey.png", "--out", "out\udcff", "--seed", "1")
    assert (said.status, said.out) == (2, "")
    assert (
        said.err
        == "dop recover: error: argument 3 after --out must be text in UTF-8, got 'out�'; choose another name\n"
    )
    assert dop("recover", "\udcff.png").err.startswith(
        "dop recover: error: argument 1 must be text in UTF-8, got '�.png'"
    )
    assert not [path for path in folder.iterdir() if path.name.startswith("out")]


def test_a_verb_that_is_not_close_is_not_guessed(dop) -> None:
    assert dop("xyzzy").err == "dop: error: no verb 'xyzzy' (dop --help lists them)\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dop_lightning.cli.configs.preset_times.PROBE", 32)  # presets are timed with a smaller image
    said = dop("help", verb) if verb == "table" else dop(verb, "--help")
    assert said.status == 0
    assert said.out.startswith(f"usage: dop {verb}")
    assert said.err == ""


def test_short_help_of_experiments_names_existing_settings(dop) -> None:
    said = dop("fit", "--help-all")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("usage: dop fit [-c CONFIG]")
    words = {word for verb in PAGES for word in re.findall(r"--[a-z][\w.-]+", page(verb))}
    named = {word for word in words if not word.endswith(".help")}  # tests/cli/experiments/test_part_help.py
    modules = (ImageDataModule, MatrixDataModule, SceneDataModule, VectorDataModule)
    data = {f"--data.{name}" for module in modules for name in inspect.signature(module).parameters}
    of_ray = argparse.ArgumentParser()
    add_ray_options(of_ray)
    own = {"--cluster", *(option for action in of_ray._actions for option in action.option_strings)}
    assert not [
        flag for flag in named if flag not in data | own and not re.search(rf"{flag}\b", said.out + " --help-all")
    ]
    lines = [line for line in page("fit").splitlines() if "NAME  " in line]
    parts = re.findall(r"\b[A-Z]\w+[a-z]\w*(?=[,.]| or|$)", "\n".join(lines), re.MULTILINE)
    known = [signals, corruption, steps, objective, convex, rivals, dop_data]
    assert len(parts) > 12
    assert not [part for part in parts if not any(hasattr(module, part) for module in known)]


# ------------------------------------------------------------------------------------------------------ users' mistakes

MISTAKES = {
    # recover; more in commands/test_recover_bad_input.py
    "no folder": (["recover", "grey.png"], "--out"),
    "pattern without match": (["recover", "*.jpeg", "--out", "out"], r"*.jpeg"),
    "seed in words": ([*RECOVER, "--seed", "x"], "--seed: invalid int value: 'x'"),
    # configs
    "nothing": (["fit"], "data"),
    "missing config": (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"),
    "config without name": (["fit", "--config"], "--config"),
    "config is a folder": (["fit", "--config", "empty"], "empty"),
    "broken config": (["fit", "--config", "broken.yaml"], "line 1, column 14"),
    "config is a list": (["fit", "--config", "list.yaml"], "list.yaml: must contain settings"),
    "dangling reference": ([*FIT, "--config", "dangling.yaml"], "model.nothing"),
    "dangling reference on the line": ([*FIT, "--model.tau", "${model.nothing}"], "model.nothing"),
    "stray word": ([*FIT, "stray"], "stray"),
    "another section": ([*FIT, "--bogus", "1"], "--bogus"),
    # settings
    "another setting": ([*FIT, "--model.bogus", "1"], "--model.bogus"),
    "another setting of the data": ([*FIT, "--data.bogus", "1"], "bogus"),
    "tau in words": (
        [*FIT, "--model.tau", "fast"],
        "--model.tau must be a number, a list of numbers or 'auto', got 'fast'",
    ),
    "tau below 0": ([*FIT, "--model.tau", "-1"], "tau must be a finite number above 0, got -1.0"),
    "too few taus": ([*FIT, "--model.tau", "[1.0]"], "tau must be one number, or one per problem (2)"),
    "no alpha": ([*FIT, "--model.alpha", "0"], "alpha must be a finite number above 0, got 0.0"),
    "no block": ([*FIT, "--model.block", "0"], "block must be a whole number of at least 1, got 0"),
    "another signal": ([*FIT, "--model.signal", "Nope"], "Nope"),
    "signal of images": ([*FIT, "--model.signal", "SkipUNet"], "SkipUNet requires images"),
    "no rank": ([*FIT, "--model.signal.init_args.rank", "0"], "rank must be a whole number of at least 1, got 0"),
    "rank in words": (
        [*FIT, "--model.signal.init_args.rank", "low"],
        "--model.signal.init_args.rank must be a whole number or null",
    ),
    "another reduction": (
        [*FIT, "--model.loss", "SquaredLoss", "--model.loss.init_args.reduction", "median"],
        "--model.loss.init_args.reduction must be 'quarter', 'half', 'sum' or 'mean', got 'median'\n",
    ),
    "another data module": ([*FIT, "--data", "Nope"], "Nope"),
    "size in words": (
        [*FIT, "--data.n", "big"],
        "--data.n must be a whole number or a list of whole numbers, got 'big'",
    ),
    "no size": ([*FIT, "--data.n", "0"], "n must be a whole number of at least 1, got 0"),
    "rank above the size": ([*FIT, "--data.rank", "13"], "rank must be at most 12, the smaller side, got 13"),
    "no seeds": ([*FIT, "--data.seeds", "0"], "seeds must be a whole number of at least 1, got 0"),
    "equal seeds": ([*FIT, "--data.seeds", "[1,1]"], "seeds must be different integers, at least one, got [1, 1]"),
    "ratio above 1": ([*FIT, "--data.noise.init_args.ratio", "2"], "ratio must lie between 0 and 1, got 2.0"),
    "ratio in words": ([*FIT, "--data.noise.init_args.ratio", "half"], "ratio must be a number, got 'half'"),
    "missing matrix": ([*FIT, "--data.files", "nowhere.npy"], "nowhere.npy"),
    "no batch": ([*FIT, "--data.batch_size", "0"], "batch_size must be a whole number of at least 1, got 0"),
    # the run
    "no end": ([*FIT, "--trainer.max_steps", "-1"], "max_steps must be the number of gradient iterations"),
    "no iterations at all": ([*FIT, "--trainer.max_steps", "0"], "max_steps must be the number of gradient iterations"),
    "steps in words": ([*FIT, "--trainer.max_steps", "many"], "max_steps"),
    "another accelerator": ([*FIT, "--trainer.accelerator", "abacus"], "abacus"),
    "no tolerance": ([*FIT, "--stable.tolerance", "0"], "tolerance must be a finite number above 0, got 0.0"),
    "no window": ([*FIT, "--stable.window", "0"], "window must be a whole number of at least 1, got 0"),
    "no minutes": ([*FIT, "--checkpoint.every_minutes", "0"], "every_minutes must be a finite number above 0"),
    "run is a file": ([*FIT, "--trainer.default_root_dir", "text.png"], "text.png"),
    "missing checkpoint": ([*FIT, "--ckpt_path", "nowhere"], "'nowhere', which does not exist"),
    "last of no run": (
        ["fit", "--config", "base.yaml", "--trainer.default_root_dir", "null", "--ckpt_path", "last"],
        "trainer.default_root_dir",
    ),
    "checkpoint is an image": ([*FIT, "--ckpt_path", "grey.png"], "grey.png: damaged, or not a checkpoint"),
    "checkpoint is an empty folder": ([*FIT, "--ckpt_path", "empty"], "empty: not a checkpoint folder"),
    "validate nothing": (["validate"], "data"),
    "test without a run": (["test", "--config", "base.yaml"], "out: no checkpoint to test; run dop fit first"),
    "predict without a run": (["predict", "--config", "base.yaml", "--trainer.default_root_dir", "x"], "no checkpoint"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_writes_nothing(mistake: str, folder: Path, dop) -> None:
    arguments, named = MISTAKES[mistake]
    before = listing(folder)
    said = dop(*arguments)
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert said.err.startswith(f"dop {arguments[0]}: error: ")
    assert named in said.err
    assert said.out == ""
    assert listing(folder) == before


VALUES = {
    "gradient_clip_algorithm": "norm",
    "strategy": "ddp",
    "sync_batchnorm": "true",
    "use_distributed_sampler": "false",
    "barebones": "true",
}


@pytest.mark.parametrize("flag", REFUSED)
def test_flags_of_the_trainer_without_meaning_are_refused_by_name(flag: str, folder: Path, dop) -> None:
    before = listing(folder)
    said = dop(*FIT, f"--trainer.{flag}", VALUES.get(flag, "3"))
    assert said.status == 2
    assert said.err.startswith(f"dop fit: error: trainer.{flag} is not supported, got ")
    assert said.err.endswith(f": {REFUSED[flag]}\n")
    assert listing(folder) == before


def test_traceback_on_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOP_TRACEBACK", "1")
    with pytest.raises(ValueError, match="rank must be at most 12"):
        main([*FIT, "--data.rank", "13"])


@pytest.mark.parametrize("value", ["0", ""])
def test_no_traceback_by_default(value: str, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOP_TRACEBACK", value)
    assert dop("status", "none").status == 2


def test_wrong_environment_variable_is_reported(dop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOP_TRACEBACK", "yes")
    said = dop("status", "none")
    expected = "dop status: error: the environment variable DOP_TRACEBACK must be 0 or 1, got 'yes'\n"
    assert (said.status, said.err) == (2, expected)


# ------------------------------------------------------------------------------------------------------------------ fit


def test_fit_writes_the_files_of_a_run(folder: Path, dop) -> None:
    said = dop(*FIT)
    assert said.status == 0
    files = listing(folder / "out")
    for name in ("config.yaml", "manifest.json", "results.csv", "metrics.csv", "checkpoints/last.ckpt/batch-0000.pt"):
        assert name in files
    for seed in (0, 1):
        problem = f"n12-r1-gross-outliers-0.1-seed{seed}"
        for name in ("result.json", "recovered.png", "corruption.png", "comparison.png", "recovered.npy"):
            assert f"{problem}/{name}" in files
        assert list((folder / "out" / problem).glob("events.out.tfevents.*"))
        assert problem in said.out
    assert said.out.splitlines()[-1] == "Files: out"
    assert not [name for name in files if "lightning_logs" in name or name.endswith(".tmp")]
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert [entry["name"] for entry in manifest["problems"]] == [PROBLEM, PROBLEM.replace("seed0", "seed1")]


def test_the_saved_config_repeats_the_run(folder: Path, dop) -> None:
    dop(*FIT, "--model.alpha", "3.0")
    said = dop("fit", "--config", "out/config.yaml", "--trainer.default_root_dir", "again")
    assert said.status == 0
    assert result("again", PROBLEM)["alpha"] == 3.0
    one, other = (np.load(Path(run) / PROBLEM / "recovered.npy") for run in ("out", "again"))
    assert np.array_equal(one, other)


def test_repeated_fit_only_prints_the_table(folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dop(*FIT)
    recovered = Path("out") / PROBLEM / "recovered.npy"
    before = recovered.stat().st_mtime_ns
    monkeypatch.setattr("dop_lightning.engine.descent.BatchState.advance", lambda *_: pytest.fail("computes again"))
    again = dop(*FIT)
    assert again.status == 0
    assert again.out == first.out
    assert again.err == "Resuming the run in out\n"
    assert recovered.stat().st_mtime_ns == before


def test_fit_continues_to_more_iterations(folder: Path, dop) -> None:
    dop(*FIT, "--trainer.max_steps", "137")
    said = dop(*FIT, "--model.block", "33")
    assert said.status == 0
    assert result("out", PROBLEM)["iterations"] == 300
    dop(*FIT, "--trainer.default_root_dir", "once")
    one, other = (np.load(Path(run) / PROBLEM / "recovered.npy") for run in ("out", "once"))
    assert np.array_equal(one, other)


def test_another_run_in_the_same_folder_is_refused(folder: Path, dop) -> None:
    dop(*FIT)
    kept = {path: (folder / path).stat().st_mtime_ns for path in listing(folder)}
    for change, different in (
        (["--model.tau", "1.0e-3"], "model.tau: 0.002 in the run, 0.001 given"),
        (["--data.dtype", "float64"], "data.dtype: float32 in the run, float64 given"),
        (["--stable.tolerance", "0.1"], "stable.tolerance: null in the run, 0.1 given"),
    ):
        said = dop(*FIT, *change)
        assert said.status == 2
        assert said.err == (
            f"dop fit: error: out: holds another run ({different}); choose another folder, or remove that one\n"
        )
    assert {path: (folder / path).stat().st_mtime_ns for path in listing(folder)} == kept


def test_resuming_by_a_checkpoint_of_another_folder(folder: Path, dop) -> None:
    dop(*FIT, "--trainer.max_steps", "137")
    said = dop(*FIT, "--trainer.default_root_dir", "other", "--ckpt_path", "out/checkpoints/last.ckpt")
    assert said.status == 0
    assert result("other", PROBLEM)["iterations"] == 300
    dop(*FIT, "--trainer.default_root_dir", "once")
    one, two = (np.load(Path(run) / PROBLEM / "recovered.npy") for run in ("other", "once"))
    assert np.array_equal(one, two)


def test_last_checkpoint_of_a_new_run_is_ignored(folder: Path, dop) -> None:
    assert dop(*FIT, "--ckpt_path", "last").status == 0
    assert result("out", PROBLEM)["iterations"] == 300


def test_a_run_without_a_folder_is_named_by_experiment_and_time(folder: Path, dop) -> None:
    config = {**BASE, "trainer": {"max_steps": 10, "accelerator": "cpu"}}
    Path("homeless.yaml").write_text(yaml.safe_dump(config))
    said = dop("fit", "--config", "homeless.yaml")
    (run,) = (folder / "runs" / "homeless").iterdir()
    assert said.out.splitlines()[-1] == f"Files: runs/homeless/{run.name}"


def test_diverged_problem_is_reported(folder: Path, dop) -> None:
    said = dop(*FIT, "--model.tau", "[2.0e-3, 1.0e+3]")
    assert said.status == 0
    assert [line.split()[1] for line in said.out.splitlines()[1:3]] == ["done", "diverged"]


def test_signal_stops_fit_and_the_same_command_resumes(
    folder: Path, dop, stop_at, monkeypatch: pytest.MonkeyPatch
) -> None:
    for by, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        run = by.name
        stop = stop_at(150, by)
        with monkeypatch.context() as patch:
            patch.setattr(
                IterationProgress, "on_train_batch_end", lambda _, *args, stop=stop: stop.on_train_batch_end(*args)
            )
            said = dop(*FIT, "--trainer.default_root_dir", run)
        assert said.status == status
        assert result(run, PROBLEM)["status"] == "interrupted"
        assert result(run, PROBLEM)["iterations"] == 150
        assert "interrupted" in said.out
        assert dop(*FIT, "--trainer.default_root_dir", run).status == 0
    dop(*FIT)
    undisturbed = np.load(Path("out") / PROBLEM / "recovered.npy")
    assert all(
        np.array_equal(np.load(Path(run) / PROBLEM / "recovered.npy"), undisturbed) for run in ("SIGINT", "SIGTERM")
    )


def test_second_interrupt_exits_with_130(folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(IterationProgress, "on_train_batch_end", twice)
    assert dop(*FIT).status == 130


# -------------------------------------------------------------------------------------------------------------- configs


def printed(dop, *arguments: str) -> dict[str, Any]:
    said = dop("fit", *arguments, "--print_config")
    assert said.status == 0
    assert said.err == ""
    return yaml.safe_load(said.out)


def test_print_config_prints_all_settings_and_does_not_run(folder: Path, dop) -> None:
    before = listing(folder)
    config = printed(dop, "--config", "base.yaml", "--model.alpha", "5")
    assert (config["model"]["tau"], config["model"]["alpha"], config["model"]["block"]) == (2e-3, 5.0, 50)
    assert config["data"]["class_path"] == "dop_lightning.MatrixDataModule"
    assert config["trainer"]["max_steps"] == 300
    assert {"stable", "tensorboard", "checkpoint", "progress"} <= set(config)
    assert listing(folder) == before


def test_configs_compose_from_left_to_right_and_options_override_them(folder: Path, dop) -> None:
    Path("a.yaml").write_text("model: {tau: 1.0e-3, alpha: 2.0}\ndata: {init_args: {seeds: [4]}}\n")
    Path("b.yaml").write_text("model: {alpha: 3.0, corruption: null}\n")
    config = printed(dop, "--config", "base.yaml", "--config", "a.yaml", "--config", "b.yaml", "--model.block", "7")
    assert {key: config["model"][key] for key in ("tau", "alpha", "corruption", "block")} == {
        "tau": 1e-3,
        "alpha": 3.0,
        "corruption": None,
        "block": 7,
    }
    data = config["data"]["init_args"]
    assert (data["seeds"], data["n"], data["noise"]["init_args"]["ratio"]) == ([4], 12, 0.1)
    other = printed(dop, "--config", "base.yaml", "--config", "b.yaml", "--config", "a.yaml")
    assert other["model"]["alpha"] == 2.0


def test_references_work_across_files_and_options(folder: Path, dop) -> None:
    Path("reference.yaml").write_text(
        "model: {alpha: '${model.tau}'}\ntrainer: {default_root_dir: 'tau-${model.tau}'}\n"
    )
    said = dop(*FIT, "--config", "reference.yaml", "--model.tau", "0.25", "--trainer.max_steps", "1")
    assert said.status == 0
    saved = yaml.safe_load(Path("tau-0.25/config.yaml").read_text())
    assert saved["model"]["alpha"] == saved["model"]["tau"] == 0.25
    dop(*FIT, "--model.tau", "${data.init_args.noise.init_args.ratio}", "--trainer.max_steps", "1")
    assert result("out", PROBLEM)["tau"] == 0.1


def test_rate_per_problem_and_optimizer_by_options(folder: Path, dop) -> None:
    said = dop(
        *FIT, "--model.alpha", "[3.0, 4.0]", "--model.theta_optimizer", "torch.optim.Adam",
        "--model.theta_optimizer.init_args.lr", "0.02",
    )  # fmt: skip
    assert said.status == 0
    assert [result("out", PROBLEM.replace("seed0", f"seed{k}"))["alpha"] for k in (0, 1)] == [3.0, 4.0]


# ------------------------------------------------------------------------------------------ validate, test and predict


@pytest.mark.parametrize(
    "where", [["--config", "out/config.yaml"], [*FIT[1:], "--ckpt_path", "out/checkpoints/last.ckpt"]]
)
def test_validate_and_test_print_the_scores_of_the_run(where: list[str], folder: Path, dop) -> None:
    fitted = dop(*FIT).out.splitlines()
    before = listing(folder)
    for verb in ("validate", "test"):
        said = dop(verb, *where)
        assert said.status == 0
        titles, *rows = (line.split() for line in said.out.splitlines()[:3])
        assert "seconds" not in titles
        without_seconds = [[cell for k, cell in enumerate(line.split()) if k != 3] for line in fitted[1:3]]
        assert rows == without_seconds
    assert listing(folder) == before


def test_predict_writes_the_recovered_files(folder: Path, dop) -> None:
    dop(*FIT)
    recovered = Path("out") / PROBLEM / "recovered.npy"
    before = recovered.read_bytes()
    recovered.unlink()
    assert dop("predict", "--config", "out/config.yaml").status == 0
    assert recovered.read_bytes() == before


# -------------------------------------------------------------------------------------------------------------- recover


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(("shape", "mode"), [((37, 51), "L"), ((37, 51, 3), "RGB")])
def test_recover_keeps_size_and_mode(shape: tuple[int, ...], mode: str, suffix: str, folder: Path, dop) -> None:
    save(f"photo.{suffix}", *shape)
    said = dop("recover", f"photo.{suffix}", *RECOVER[2:])
    assert said.status == 0
    with Image.open("out/photo/recovered.png") as image:
        assert (image.mode, image.size) == (mode, (51, 37))
    assert result("out", "photo")["iterations"] == 3
    assert "psnr" not in result("out", "photo")


def test_recover_with_truth_gives_scores(folder: Path, dop) -> None:
    shutil.copy("grey.png", "clean.png")
    said = dop(*RECOVER, "--truth", "clean.png")
    assert said.status == 0
    found = result("out", "grey")
    assert {"psnr", "ssim", "relative_error"} <= set(found)
    assert "PSNR" in said.out


def test_recover_several_files_of_several_sizes(folder: Path, dop) -> None:
    Path("more").mkdir()
    save("more/small.png", 5, 4)
    save("more/grey.png", 37, 51, seed=1)
    said = dop("recover", "grey.png", "rgb.png", "more", *RECOVER[2:])
    assert said.status == 0
    shapes = {}
    for name in ("grey", "rgb", "grey-2", "small"):
        with Image.open(f"out/{name}/recovered.png") as image:
            shapes[name] = (image.mode, image.size)
    grey = ("L", (51, 37))
    assert shapes == {"grey": grey, "rgb": ("RGB", (51, 37)), "grey-2": grey, "small": ("L", (4, 5))}
    assert [line.split()[0] for line in said.out.splitlines()[1:5]] == ["grey", "rgb", "grey-2", "small"]


def test_recover_again_prints_the_table_and_another_run_is_refused(
    folder: Path, dop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dop(*RECOVER)
    with monkeypatch.context() as patch:
        patch.setattr("dop_lightning.engine.descent.BatchState.advance", lambda *_: pytest.fail("computes again"))
        again = dop(*RECOVER)
    assert (again.status, again.out) == (0, first.out)
    for change in (["--seed", "1"], ["--width", "5"], ["--alpha", "7"]):
        said = dop(*RECOVER, *change)
        assert said.status == 2
        assert "holds another run" in said.err
    save("grey.png", 37, 51, seed=9)  # the same name and settings, but another picture
    assert "out: the data of grey have changed since the run was started (" in dop(*RECOVER).err


def test_recover_starts_from_the_seed(folder: Path, dop) -> None:
    recovered = []
    for run, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        dop("recover", "grey.png", "--out", run, *RECOVER[4:], "--seed", seed)
        recovered.append(np.load(f"{run}/grey/recovered.npy"))
    assert np.array_equal(recovered[0], recovered[1])
    assert not np.array_equal(recovered[0], recovered[2])


def test_recover_does_not_change_random_numbers_or_the_image(folder: Path, dop) -> None:
    before, state = Path("grey.png").read_bytes(), torch.get_rng_state()
    dop(*RECOVER)
    assert Path("grey.png").read_bytes() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_full_disk_gives_one_line(folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "out/grey/recovered.png")

    monkeypatch.setattr(RecoveredFiles, "write_recovery", staticmethod(full))
    said = dop(*RECOVER)
    assert said.status == 2
    assert said.err.splitlines()[-1] == "dop recover: error: out/grey/recovered.png: No space left on device"
    assert "Traceback" not in said.err


@pytest.mark.slow
def test_interrupted_process_writes_results_and_resumes(folder: Path, dop) -> None:
    command = [*RECOVER, "--iterations", "1000000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dop_lightning", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        metrics = folder / "out" / "metrics.csv"
        while process.poll() is None and not (metrics.is_file() and metrics.read_text().count("\n") > 1):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "interrupted" in out
    assert "Traceback" not in err
    reached = result("out", "grey")
    assert reached["status"] == "interrupted"
    assert reached["iterations"] >= 50
    with Image.open("out/grey/recovered.png") as image:
        assert (image.mode, image.size) == ("L", (51, 37))
    end = reached["iterations"] + 5
    assert dop(*RECOVER, "--iterations", str(end)).status == 0
    assert (result("out", "grey")["status"], result("out", "grey")["iterations"]) == ("done", end)
    dop("recover", "grey.png", "--out", "once", *RECOVER[4:], "--iterations", str(end))
    assert np.array_equal(np.load("out/grey/recovered.npy"), np.load("once/grey/recovered.npy"))


def test_run_resumes_from_its_config_and_checkpoint(folder: Path, dop) -> None:
    assert dop(*FIT).status == 0
    steps = ["--trainer.max_steps", "400"]
    elsewhere = [*FIT, "--trainer.default_root_dir", "other", "--ckpt_path", "out/checkpoints/last.ckpt", *steps]
    assert dop(*elsewhere).status == 0
    assert yaml.safe_load((folder / "other" / "config.yaml").read_text())["ckpt_path"] is None
    assert " 400 " in dop("validate", "--config", "other/config.yaml").out


def test_results_that_were_removed_are_written_again(folder: Path, dop) -> None:
    assert dop(*FIT).status == 0
    table = (folder / "out" / "results.csv").read_text()
    before = (folder / "out" / PROBLEM / "recovered.npy").read_bytes()
    shutil.rmtree(folder / "out" / PROBLEM)
    assert dop(*FIT).status == 0
    assert (folder / "out" / PROBLEM / "recovered.npy").read_bytes() == before
    assert (folder / "out" / "results.csv").read_text() == table


def test_one_of_many_devices_is_used() -> None:
    """Lightning's own default is all of them, in a process group."""
    assert TRAINER_DEFAULTS["devices"] == TRAINER_DEFAULTS["num_nodes"] == 1


@pytest.mark.slow
def test_closed_pipe_is_not_an_error(folder: Path, dop) -> None:
    assert dop(*FIT, "--trainer.max_steps", "1").status == 0
    command = f"{sys.executable} -m dop_lightning validate --config out/config.yaml | true; echo ${{PIPESTATUS[0]}}"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert process.stderr == ""
    assert process.stdout.strip() in ("0", "141")
