"""Parts of users with wrong arguments get one line, which names class and method; their own faults a traceback."""

import sys
import textwrap
from pathlib import Path

import pytest

from dop_lightning.cli.main import main

PARTS = """
import torch
from torch import nn

from dop_lightning import Corruption, Noise, Operator, RecoveryCallback, Signal, StepRule
from dop_lightning.model.losses import Loss
from dop_lightning.problems.noise import Corrupted


class NoiseOfOneArgument(Noise):
    name = "one"
    def apply(self, clean): return clean

class NoiseOfATensor(Noise):
    name = "tensor"
    def apply(self, clean, running, generator): return clean

class NoiseWithoutApply(Noise):
    name = "nothing"

class FaultyNoise(Noise):
    name = "faulty"
    def apply(self, clean, running, generator):
        return len(5)

class FaultyStart(Noise):
    name = "start"
    def __init__(self, ratio: float = 0.5):
        raise TypeError("ratio is not right")
    def apply(self, clean, running, generator): return running

class RefusingStart(Noise):
    name = "refusing"
    def __init__(self, ratio: float = 0.5):
        raise ValueError("ratio is not right")
    def apply(self, clean, running, generator): return running

class SignalOfNothing(Signal):
    def __init__(self): ...
    def forward(self, iteration=0): ...

class Full(Signal):
    def __init__(self, problems):
        super().__init__(problems)
        self.theta = nn.Parameter(torch.zeros_like(problems.observation))
    def forward(self, iteration=0): return self.theta

class SignalWithoutIteration(Full):
    def forward(self): return self.theta

class SignalOfOne(Full):
    def forward(self, iteration=0): return self.theta[0]

class FaultySignal(Full):
    def forward(self, iteration=0):
        return self.theta + "a"

def number(problems) -> Signal: return 5

class CorruptionOfNothing(Corruption): ...

class RefusingCorruption(Corruption):
    def __init__(self, problems, other=None):
        raise ValueError("other must be given")

class CorruptionWithoutRate(Corruption):
    def descend_(self, derivative): ...

class OperatorWithoutArguments(Operator):
    def __init__(self): ...
    def forward(self, signal): return signal
    def adjoint(self, residual): return residual

class OperatorOfNothing(Operator):
    def forward(self): ...
    def adjoint(self, residual): return residual

class LossOfTwo(Loss):
    def value(self, r, weight): ...
    def derivative_(self, r): return 1.0

class RuleWithoutIterations(StepRule):
    def descend(self, state): ...

class RuleOfNothing(StepRule):
    def descend(self, state, iterations): ...

class CallbackOfTwo(RecoveryCallback):
    def on_evaluation(self, trainer, module): ...

class CallbackOfFit(RecoveryCallback):
    def on_train_batch_end(self, trainer): ...

class FaultyCallback(RecoveryCallback):
    def on_evaluation(self, trainer, module, batch):
        self.nothing += 1

class EndlessCallback(RecoveryCallback):
    def on_evaluation(self, trainer, module, batch):
        next(iter([]))

class RefusingCallback(RecoveryCallback):
    def on_evaluation(self, trainer, module, batch):
        raise ValueError("this is enough")
"""

CONFIG = """
model: {block: 5, evaluate_every: 5}
data: {class_path: MatrixDataModule, init_args: {n: 6, rank: 1}}
files: {most_pictures: 0}
trainer: {max_steps: 10, accelerator: cpu, default_root_dir: out}
"""

LINES = {
    "--data.noise NoiseOfOneArgument": (
        "parts.NoiseOfOneArgument.apply must take (self, clean, running, generator), got apply(self, clean) in "
    ),
    "--data.noise NoiseOfATensor": "parts.NoiseOfATensor.apply must return a Corrupted, got a Tensor in ",
    "--data.noise NoiseWithoutApply": (
        "--data.noise: parts.NoiseWithoutApply is abstract: it must define apply(self, clean, running, generator)"
    ),
    "--data.noise RefusingStart": "ratio is not right (",
    "--model.signal SignalOfNothing": (
        "signal: parts.SignalOfNothing.__init__ must take (self, problems), got __init__(self) in "
    ),
    "--model.signal SignalWithoutIteration": (
        "parts.SignalWithoutIteration.forward must take (self, iteration=0), got forward(self) in "
    ),
    "--model.signal SignalOfOne": "SignalOfOne.forward must return φ(θ) of shape (1, 6, 6), got shape (6, 6)",
    "--model.signal number": "parts.number must return a Signal, got an int in ",
    "--model.signal NoiseOfATensor": "--model.signal: parts.NoiseOfATensor must be a subclass of Signal, got one of N",
    "--model.corruption CorruptionOfNothing": "CorruptionOfNothing has no parameters; set is_modelled = False",
    "--model.corruption RefusingCorruption": "other must be given (",
    "--model.corruption CorruptionWithoutRate": (
        "parts.CorruptionWithoutRate.descend_ must take (self, derivative, rate), got descend_(self, derivative) in "
    ),
    "--model.operator OperatorWithoutArguments": (
        "operator: parts.OperatorWithoutArguments.__init__ must take (self, problems), got __init__(self) in "
    ),
    "--model.operator OperatorOfNothing": (
        "parts.OperatorOfNothing.forward must take (self, signal), got forward(self) in "
    ),
    "--model.loss LossOfTwo": "parts.LossOfTwo.value must take (self, r), got value(self, r, weight) in ",
    "--model.steps RuleWithoutIterations": (
        "parts.RuleWithoutIterations.descend must take (self, state, iterations), got descend(self, state) in "
    ),
    "--model.steps RuleOfNothing": "parts.RuleOfNothing.descend must return a Tensor, got None in ",
    "--trainer.callbacks+ CallbackOfTwo": (
        "parts.CallbackOfTwo.on_evaluation must take (self, trainer, module, batch), got on_evaluation(self, trainer, "
        "module) in "
    ),
    "--trainer.callbacks+ CallbackOfFit": (
        "parts.CallbackOfFit.on_train_batch_end must take (self, trainer, pl_module, outputs, batch, batch_idx), got "
        "on_train_batch_end(self, trainer) in "
    ),
    "--trainer.callbacks+ RefusingCallback": "this is enough (",
}

FAULTS = {
    "--data.noise FaultyNoise": ("return len(5)", "TypeError: object of type 'int' has no len()"),
    "--data.noise FaultyStart": ('raise TypeError("ratio is not right")', "TypeError: ratio is not right"),
    "--model.signal FaultySignal": ('return self.theta + "a"', "TypeError: unsupported operand type(s)"),
    "--trainer.callbacks+ EndlessCallback": ("next(iter([]))", "StopIteration"),
    "--trainer.callbacks+ FaultyCallback": ("self.nothing += 1", "AttributeError: 'FaultyCallback' object has no att"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which is on Python's path, with a config and the parts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "parts", raising=False)
    (tmp_path / "parts.py").write_text(textwrap.dedent(PARTS))
    (tmp_path / "base.yaml").write_text(CONFIG)
    return tmp_path


def command(typed: str) -> list[str]:
    option, name = typed.split()
    return ["fit", "--config", "base.yaml", f"{option}=parts.{name}"]


@pytest.mark.parametrize("typed", LINES)
def test_wrong_arguments_give_one_line(typed: str, folder: Path, dop) -> None:
    said = dop(*command(typed))
    assert said.status == 2
    last = said.err.splitlines()[-1]
    assert last.startswith(f"dop fit: error: {LINES[typed]}")
    assert "Traceback" not in said.err
    if LINES[typed].endswith((" in ", " (")):
        assert f"{folder}/parts.py, line " in last
        assert last.endswith(")") == LINES[typed].endswith(" (")


@pytest.mark.parametrize("typed", FAULTS)
def test_error_keeps_its_location(typed: str, folder: Path, dop) -> None:
    said = dop(*command(typed))
    code, error = FAULTS[typed]
    lines = [line.strip() for line in said.err.splitlines()]
    start = lines.index("Traceback of your code (DOP_TRACEBACK=1 shows all of it):")
    assert said.status == 1
    assert lines[start + 1].startswith(f'File "{folder}/parts.py", line ')
    assert lines[start + 2] == code
    assert lines[-1].startswith(error)
    assert not [line for line in lines if line.startswith("File") and "dop_lightning" in line]


def test_full_traceback_is_available(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOP_TRACEBACK", "1")
    with pytest.raises(TypeError, match="has no len"):
        main(command("--data.noise FaultyNoise"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_this_name\n", "ModuleNotFoundError in {file}, line 1: No module named 'nothing_of_this_"),
        ("x = 1\nx = (\n", "SyntaxError in {file}, line 2: '(' was never closed"),
        ("from torch import nothing_there\n", "ImportError in {file}, line 1: cannot import name 'nothing_there'"),
    ],
)
def test_import_error_of_a_module_is_explained(text: str, said: str, folder: Path, dop) -> None:
    (folder / "broken_part.py").write_text(text)
    line = dop("fit", "--config", "base.yaml", "--data.noise", "broken_part.Mine").err
    reason = said.format(file=folder / "broken_part.py")
    assert line.startswith(f"dop fit: error: --data.noise: broken_part.Mine cannot be imported: {reason}")
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "meant"),
    [("prts.FaultyNoise", "parts.FaultyNoise"), ("parts.FaultyNoize", "parts.FaultyNoise")],
)
def test_custom_parts_are_suggested(path: str, meant: str, folder: Path, dop) -> None:
    assert dop("fit", "--config", "base.yaml", "--data.noise", path).err.endswith(f"; did you mean {meant}?\n")
