"""Typos in configs and options: one line, which names the nearest right word, exit status 2, and no traceback."""

import re
import shlex
from pathlib import Path

import pytest

from dop_lightning.cli.experiments.lightning_cli import parser_of
from dop_lightning.cli.experiments.mistakes import Settings
from dop_lightning.cli.experiments.sources import sources

ROOT = Path(__file__).parents[3]

IMAGE = """
model:
  signal: {class_path: SkipUNet, init_args: {width: 8}}
data:
  class_path: ImageDataModule
  init_args:
    images: camera
    noise: {class_path: SaltAndPepper, init_args: {ratio: 0.5}}
trainer: {max_steps: 10, accelerator: cpu, default_root_dir: out}
"""
MATRIX = """
data:
  class_path: MatrixDataModule
  init_args: {n: 12, rank: 1, noise: {class_path: GrossOutliers, init_args: {ratio: 0.1}}}
trainer: {max_steps: 10, accelerator: cpu, default_root_dir: out}
"""

OPTIONS = {
    # names of classes
    "--data.noise SaltAndPeper": "SaltAndPepper",
    "--data.noise SaltNPepper": "SaltAndPepper",
    "--data.noise dop_lightning.problems.noise.SaltAndPeper": "dop_lightning.problems.noise.SaltAndPepper",
    "--data.noise dop_lightning.problem.noise.SaltAndPepper": "dop_lightning.problems.noise.SaltAndPepper",
    "--data.noise dop_lightnin.problems.noise.SaltAndPepper": "dop_lightning.problems.noise.SaltAndPepper",
    "--data.noise [GrossOutliers,GaussianNoize]": "GaussianNoise",
    "--data.noise+=GaussianNoize": "GaussianNoise",
    "--data ImageDataModul": "ImageDataModule",
    "--data.class_path ImageDataModul": "ImageDataModule",
    "--data.sensing GaussianBlurr": "GaussianBlur",
    "--model.signal SkipUnet": "SkipUNet",
    "--model.signal Unet": "SkipUNet",
    "--model.signal.class_path SymetricFactor": "SymmetricFactor",
    "--model.corruption HadamardCoruption": "HadamardCorruption",
    "--model.corruption Hadamard": "HadamardCorruption",
    "--model.steps Refinment": "Refinement",
    "--model.loss SquareLoss": "SquaredLoss",
    "--model.solver InexactAML": "InexactALM",
    "--model.theta_optimizer Adan": "Adam",
    "--model.operator dop_lightning.model.operators.operator_off": "dop_lightning.model.operators.operator_of",
    "--trainer.callbacks EarlyStoping": "EarlyStopping",
    "--trainer.callbacks+=DualCertificat": "DualCertificate",
    "--trainer.logger CSVLoger": "CSVLogger",
    # keys
    "--model.taux 3": "--model.tau",
    "--modle.tau 3": "--model.tau",
    "--model.evaluate-evry 3": "--model.evaluate_every",
    "--model.signal.widht 3": "--model.signal.width",
    "--model.signal.init_args.widht 3": "--model.signal.init_args.width",
    "--model.width 3": "--model.signal.init_args.width",
    "--data.imags coffee": "--data.images",
    "--data.init_args.imags coffee": "--data.init_args.images",
    "--data.nose.ratio 0.3": "--data.noise",
    "--data.noise.init_args.ration 0.3": "--data.noise.init_args.ratio",
    "--trainer.max_step 3": "--trainer.max_steps",
    "--max_steps 3": "--trainer.max_steps",
    "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitr x": "--trainer.callbacks.monitor",
    "--model.theta_optimizer Adam --model.theta_optimizer.lrr 3": "--model.theta_optimizer.lr",
    "--stable.tolerence 0.1": "--stable.tolerance",
    "--ckpt_pth last": "--ckpt_path",
    "--confg a.yaml": "--config",
    "--print_confg": "--print_config",
    # choices
    "--model.tau atuo": "'auto'",
    "--model.alpha nul": "'null'",
    "--model.loss SquaredLoss --model.loss.reduction means": "'mean'",
    "--model.signal.precision pf32": "'fp32'",
    "--data.batch_size aut": "'auto'",
    "--data.channels gray": "'grey'",
    "--data.noise.per pixels": "'pixel'",
    "--trainer.enable_progress_bar flase": "'false'",
    "--trainer.deterministic warm": "'warn'",
    "--early_stop.variance windowd": "'windowed'",
}

FILES = {
    "mdoel: {tau: 1}": "model",
    "model: {tua: 1}": "model.tau",
    "max_steps: 3": "trainer.max_steps",
    "trainer: {max_step: 5}": "trainer.max_steps",
    "stable: {tolerence: 0.1}": "stable.tolerance",
    "model: {signal: SkipUnet}": "SkipUNet",
    "model: {signal: {class_path: SkipUNet, init_args: {widht: 3}}}": "model.signal.init_args.width",
    "model: {signal: {class_pth: SkipUNet}}": "class_path",
    "model: {signal: {class_path: SkipUNet, init_arg: {width: 3}}}": "init_args",
    "model: {loss: {class_path: SquaredLoss, init_args: {reduction: means}}}": "'mean'",
    "model: {tau: atuo}": "'auto'",
    "data: {class_path: MatrixDataModul}": "MatrixDataModule",
    "data: {init_args: {sedes: 3}}": "data.init_args.seeds",
    "data: {init_args: {noise: [{class_path: GrossOutliers, init_args: {ratio: 0.1}}, {class_path: GrossOutlier}]}}": (
        "GrossOutliers"
    ),
    "data: {init_args: {noise: [{class_path: GrossOutliers, init_args: {ratio: 0.1, sdt: 4}}]}}": (
        "data.init_args.noise[0].init_args.std"
    ),
    "data: {init_args: {noise: {class_path: Mixture, init_args: {parts: [{class_path: GaussianNoize}]}}}}": (
        "GaussianNoise"
    ),
    "trainer: {callbacks: [{class_path: EarlyStoping}]}": "EarlyStopping",
    "trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: x, patence: 3}}]}": (
        "trainer.callbacks[0].init_args.patience"
    ),
}

UNLIKE = [
    "--model.xyzzy 3",
    "--xyzzy.plugh 3",
    "--model.signal Xyzzy",
    "--model.signal my.Xyzzy",
    "--model.signal dop_lightning.Xyzzy",
    "--model.signal.xyzzy 3",
    "--data.noise [Xyzzy]",
    "--data.batch_size xyzzy",
    "--model.tau fast",
    "--model.loss SquaredLoss --model.loss.reduction median",
    "--stable.xyzzy 3",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a config of images and one of matrices."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.yaml").write_text(IMAGE)
    (tmp_path / "matrix.yaml").write_text(MATRIX)
    return tmp_path


def one_line(said, verb: str = "fit") -> str:
    """Error message of a refused setting."""
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(f"dop {verb}: error: ")
    assert said.err.count("\n") == 1
    return said.err.rstrip("\n")


@pytest.mark.parametrize("typed", OPTIONS)
def test_a_typo_in_an_option_names_the_nearest_word(typed: str, folder: Path, dop) -> None:
    said = one_line(dop("fit", "--config", "image.yaml", *shlex.split(typed), "--print_config"))
    assert re.search(rf"; did you mean {re.escape(OPTIONS[typed])}(\.ratio|)\?$", said)


@pytest.mark.parametrize("text", FILES)
def test_a_typo_in_a_file_names_the_file_and_the_nearest_word(text: str, folder: Path, dop) -> None:
    (folder / "mine.yaml").write_text(text)
    said = one_line(dop("fit", "--config", "matrix.yaml", "--config", "mine.yaml", "--print_config"))
    assert said.startswith("dop fit: error: mine.yaml: ")
    assert said.endswith(f"; did you mean {FILES[text]}?")


@pytest.mark.parametrize("typed", UNLIKE)
def test_unrelated_words_get_no_suggestion(typed: str, folder: Path, dop) -> None:
    said = one_line(dop("fit", "--config", "image.yaml", *shlex.split(typed), "--print_config"))
    assert "did you mean" not in said
    assert shlex.split(typed)[-1].strip("[]").rpartition(".")[2] in said or "xyzzy" in said


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--trainer.accelerator cpuu", "'cpu'"),
        ("--trainer.strategy problem_paralel", "'problem_parallel'"),
        ("--trainer.profiler simpel", "'simple'"),
        ("--data.images cofee", "coffee"),
    ],
)
def test_choice_that_is_checked_after_parsing(typed: str, meant: str, folder: Path, dop) -> None:
    said = one_line(dop("fit", "--config", "image.yaml", *typed.split()))
    assert said.endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_other_verbs_suggest_as_well(verb: str, folder: Path, dop) -> None:
    said = one_line(dop(verb, "--config", "image.yaml", "--model.taux", "3"), verb)
    assert said == f"dop {verb}: error: there is no setting --model.taux; did you mean --model.tau?"


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("recover photo.png --out x --preset qick", "'quick'"),
        ("recover photo.png --out x --iteratoins 3", "--iterations"),
        ("recover photo.png --out x --device gpuu", "'gpu'"),
        ("recover cofee --out x", "coffee"),
        ("separate a.npy --out x --iteratoins 3", "--iterations"),
        ("figure theorm-1 --out x", "'theorem-1'"),
        ("table --cvs a.csv runs", "--csv"),
        ("fit image.yaml", "--config image.yaml"),
        ("fit --config imag.yaml", "image.yaml"),
        ("sweep --config matrix.yaml --axis model.tau=1,2 --out o --cluster locl", "'local'"),
        ("sweep --config matrix.yaml --axis model.tau=1,2 --out o --cluser local", "--cluster"),
    ],
)
def test_options_of_other_verbs(command: str, meant: str, folder: Path, dop) -> None:
    said = one_line(dop(*command.split()), command.split()[0])
    assert said.endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize(
    ("axes", "meant"),
    [
        (["model.tua=1,2"], "--model.tau"),
        (["model.alpha=1,2", "model.tau=1,atuo"], "'auto'"),
        (["model.alpha=1,2,3", "model.signal=Factor,SymetricFactor"], "SymmetricFactor"),
        (["config=none,mine.yaml"], "model.tau"),
    ],
)
def test_a_sweep_is_checked_before_its_first_point(axes: list[str], meant: str, folder: Path, dop) -> None:
    (folder / "mine.yaml").write_text("model: {tua: 1}")
    words = [word for axis in axes for word in ("--axis", axis)]
    said = one_line(dop("sweep", "--config", "matrix.yaml", *words, "--out", "o", "--cluster", "debug"), "sweep")
    assert said.endswith(f"; did you mean {meant}?")
    assert not Path("o").exists()


def test_abbreviations_are_refused(folder: Path, dop) -> None:
    assert "there is no setting --trainer.max_st" in dop("fit", "--config", "image.yaml", "--trainer.max_st", "3").err


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_commands_in_configs_have_no_mistakes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    commands = re.findall(r"^#   dop fit (.*?)\\?$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert commands
    parser = parser_of("fit")
    for command in commands:
        Settings(parser).check(list(sources(shlex.split(command))))


def test_config_with_all_settings_has_no_mistakes(folder: Path, dop) -> None:
    options = ["--trainer.callbacks+=LearningRateMonitor", "--model.theta_optimizer=Adam", "--model.tau", "[1.0, 2.0]"]
    said = dop("fit", "--config", "image.yaml", *options, "--print_config")
    assert said.status == 0
    (folder / "all.yaml").write_text(said.out)
    Settings(parser_of("fit")).check(list(sources(["--config", "all.yaml", *options, "--data.noise=null"])))
