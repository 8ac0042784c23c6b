"""Configs that change another one but precede it: the message names both and the right order."""

from pathlib import Path

import pytest

BASE = """
model: {signal: {class_path: SkipUNet, init_args: {width: 8}}}
data:
  class_path: ImageDataModule
  init_args: {images: camera, noise: {class_path: SaltAndPepper, init_args: {ratio: 0.5}}}
trainer: {max_steps: 10}
"""

OVERLAYS = {
    "model: {signal: {init_args: {width: 4}}}": "model.signal",
    "model: {signal: {width: 4}}": "model.signal",
    "data: {init_args: {images: coffee}}": "data",
    "data: {init_args: {noise: {init_args: {ratio: 0.1}}}}": "data",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a base."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path


@pytest.mark.parametrize("text", OVERLAYS)
def test_overlay_before_its_base_is_reported(text: str, folder: Path, dop) -> None:
    (folder / "mine.yaml").write_text(text)
    said = dop("fit", "--config", "mine.yaml", "--config", "base.yaml", "--print_config")
    assert said.status == 2
    assert said.err == (
        f"dop fit: error: mine.yaml changes the arguments of {OVERLAYS[text]}, whose class is chosen later, by "
        "base.yaml; pass mine.yaml after base.yaml\n"
    )
    assert dop("fit", "--config", "base.yaml", "--config", "mine.yaml", "--print_config").status == 0


def test_overlay_without_a_base_is_reported(folder: Path, dop) -> None:
    (folder / "mine.yaml").write_text("data: {init_args: {images: coffee}}")
    assert dop("fit", "--config", "mine.yaml", "--print_config").err == (
        "dop fit: error: mine.yaml: data has init_args but no class_path; pass this file after the config that it "
        "changes: --config BASE.yaml --config mine.yaml\n"
    )
    assert dop("fit", "--data.images", "coffee", "--print_config").err == (
        "dop fit: error: --data has images but no class_path; pass it after a config, or after --data NAME\n"
    )


def test_option_before_the_config_is_reported(folder: Path, dop) -> None:
    assert dop("fit", "--data.images", "coffee", "--config", "base.yaml", "--print_config").err == (
        "dop fit: error: --data.images changes the arguments of --data, whose class is chosen later, by base.yaml; "
        "pass --data.images after base.yaml\n"
    )


def test_later_class_without_the_argument_is_not_suggested(folder: Path, dop) -> None:
    (folder / "mine.yaml").write_text("model: {signal: {init_args: {widht: 4}}}")
    said = dop("fit", "--config", "mine.yaml", "--config", "base.yaml", "--print_config")
    assert said.err.startswith("dop fit: error: mine.yaml: there is no setting model.signal.init_args.widht of Symm")


def test_arguments_next_to_a_class_path_are_moved_to_init_args(folder: Path, dop) -> None:
    (folder / "mine.yaml").write_text("data: {class_path: MatrixDataModule, n: 12}")
    said = dop("fit", "--config", "mine.yaml", "--print_config")
    assert said.err == "dop fit: error: mine.yaml: data.n must be below data.init_args\n"
