"""``--model.help``, ``--data.help NAME`` and the like: what can be set, for every section and every class."""

import pytest

from dop_lightning.cli.experiments.help import page
from dop_lightning.cli.experiments.lightning_cli import REFUSED, parser_of
from dop_lightning.lightning.callbacks import STANDARD


def help_of(dop, *arguments: str) -> str:
    said = dop("fit", *arguments)
    assert (said.status, said.err) == (0, "")
    return said.out


def test_short_help_lists_help_options() -> None:
    assert all(word in page("fit") for word in ("--model.help", "--trainer.help", "--data.help NAME"))


def test_a_section_lists_its_settings(dop) -> None:
    text = help_of(dop, "--model.help")
    assert text.startswith("usage: dop fit … [--model.SETTING VALUE …]\n\nRobust recovery by double")
    assert "  --model.tau: a number, a list of numbers or 'auto'; default: 0.0001\n      learning rate τ of θ" in text
    assert "  --model.signal: a Signal; default: SymmetricFactor\n" in text
    assert "      --model.signal.help lists the classes.\n" in text
    assert ":class:" not in text
    assert "``" not in text


def test_every_section_has_a_page(dop) -> None:
    parser = parser_of("fit")
    sections = {action.dest.split(".")[0] for action in parser._actions if "." in action.dest}
    assert {"model", "trainer", "stable", "checkpoint"} <= sections <= {"model", "trainer", "data", *STANDARD}
    for section in sections - {"data"}:
        text = help_of(dop, f"--{section}.help")
        settings = [a.dest for a in parser._actions if a.dest.startswith(f"{section}.") and a.dest[-5:] != ".help"]
        assert settings
        assert not [setting for setting in settings if f"  --{setting}: " not in text]


def test_unsupported_trainer_flags_are_marked(dop) -> None:
    text = help_of(dop, "--trainer.help")
    assert text.count("Not supported: ") == len(REFUSED)


def test_a_class_lists_its_settings(dop) -> None:
    text = help_of(dop, "--data.help", "MatrixDataModule")
    assert text.startswith("usage: dop fit … --data MatrixDataModule [--data.SETTING VALUE …]\n\nMatrices × noises")
    assert "  --data.rank: a whole number or a list of whole numbers; default: 5\n" in text
    assert text.endswith("\n\nIn a config, put these settings below init_args.\n")
    assert help_of(dop, "--data.help=MatrixDataModule") == text


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("data", ["ImageDataModule", "MatrixDataModule", "SceneDataModule", "VectorDataModule"]),
        ("model.signal", ["Factor", "SkipUNet", "SymmetricFactor"]),
        ("model.steps", ["GradientDescent", "Refinement"]),
        ("data.noise", ["GrossOutliers", "Mixture", "SaltAndPepper"]),
        ("trainer.callbacks", ["EarlyStopping", "StableOutput", "DualCertificate"]),
    ],
)
def test_classes_are_listed_without_a_name(key: str, names: list[str], dop) -> None:
    text = help_of(dop, f"--{key}.help")
    listed = [line.split()[0] for line in text.splitlines() if line[:2] == "  " and line[2] not in " -"]
    assert set(names) <= set(listed)
    assert sorted(listed) == listed
    assert not {"Signal", "Noise", "StepRule", "RecoveryDataModule"} & set(listed)  # those that cannot be made


def test_arguments_of_classes_have_help_too(dop) -> None:
    text = help_of(dop, "--data", "ImageDataModule", "--data.noise.help", "SaltAndPepper")
    assert "  --data.noise.ratio: a number\n" in text
    assert "  --data.noise.per: 'entry' or 'pixel'; default: entry\n" in text
    for key in ("model.signal.width", "model.signal.init_args.width"):
        text = help_of(dop, "--model.signal", "SkipUNet", f"--{key}.help")
        assert f"  --{key}: a whole number; default: 128\n" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--modl.help"], "there is no setting --modl; did you mean --model?"),
        (["--model.signl.help"], "there is no setting --model.signl; did you mean --model.signal?"),
        (["--model.xyzzy.help"], "there is no setting --model.xyzzy"),
        (["--model.help", "SkipUNet"], "--model.help does not accept a name, got 'SkipUNet'"),
        (["--model.tau.help", "SkipUNet"], "--model.tau.help does not accept a name, got 'SkipUNet'"),
        (["--model.tau.more.help"], "--model.tau has no settings, got --model.tau.more.help"),
        (
            ["--model.signal.help", "SkipUnet"],
            "--model.signal.help: there is no Signal 'SkipUnet'; did you mean SkipUNet?",
        ),
        (["--data", "ImageDataModul", "--data.help"], "--data: there is no RecoveryDataModule 'ImageDataModul'; did"),
    ],
)
def test_mistakes_give_one_line(arguments: list[str], text: str, dop) -> None:
    said = dop("fit", *arguments)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(f"dop fit: error: {text}")
    assert said.err.count("\n") == 1
