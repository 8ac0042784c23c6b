"""``dop fit | validate | test | predict``: print a short help page, or run :mod:`.lightning_cli`.

LightningCLI's help has hundreds of lines and takes seconds, since it imports everything that it describes. It is
available as ``--help-all``. The help of a section or a part, ``--model.signal.help SkipUNet``, is in :mod:`.part_help`.
"""

import importlib
from collections.abc import Sequence

_SETTINGS = {
    "the run": [
        ("--config FILE", "settings in YAML; later files and options override earlier ones"),
        ("--trainer.default_root_dir DIR", "folder of the run; default: runs/NAME OF THE CONFIG/TIME"),
        ("--trainer.max_steps N", "gradient iterations of each problem"),
        ("--trainer.accelerator NAME", "auto, cpu, gpu or mps; default: auto"),
        ("--trainer.devices N", "number of devices that share the problems, or auto for all; default: 1"),
        ("--ckpt_path DIR", "checkpoint to resume from; default: the last one of the folder"),
        ("--cluster ray", "share the problems among tasks of Ray, with --address, --jobs, --cpus, --gpus"),
    ],
    "data": [
        ("--data NAME", "ImageDataModule, MatrixDataModule, SceneDataModule or VectorDataModule"),
        ("--data.images FILES", "images: files, folders, patterns, names of samples"),
        ("--data.files FILES", "matrices: .npy, .npz, .csv or .mat"),
        ("--data.scenes FILES", "scenes: videos, and folders of frames"),
        ("--data.noise NAME", "simulated corruption, such as SaltAndPepper; null if your files are corrupted"),
        ("--data.seeds N", "seeds 0 to N - 1, or a list of them"),
        ("--data.batch_size N", "problems per batch, or auto"),
    ],
    "method": [
        ("--model.signal NAME", "X = φ(θ): SymmetricFactor, Factor, SkipUNet, …"),
        ("--model.corruption NAME", "s: HadamardCorruption, PixelCorruption, NoCorruption, …"),
        ("--model.loss NAME", "SquaredLoss or AbsoluteLoss"),
        ("--model.tau T", "learning rate of θ"),
        ("--model.alpha A", "ratio of the rates of s and θ, the only regularizer; null for the default"),
        ("--model.steps NAME", "GradientDescent, Nesterov, SemiImplicit or Refinement"),
        ("--model.solver NAME", "a solver of the convex program instead: InexactALM, …"),
        ("--model.filter NAME", "a classical filter of images instead: DetectAndFill, NAMF, …"),
        ("--model.evaluate_every N", "iterations between two evaluations"),
        ("--model.metrics '{NAME: PATH}'", "custom metrics by import path: torchmetrics classes, functions"),
        ("--stable.tolerance X", "stop a problem when it changes by less than X; null disables this"),
    ],
}

_MORE = [
    ("--print_config", "print all settings as YAML, including the other options, and exit"),
    ("--model.help", "print the settings of a section; likewise --trainer.help, --stable.help, …"),
    ("--data.help NAME", "print the settings of a class; likewise --model.signal.help SkipUNet, …"),
    ("--model.signal.help", "print the available classes; likewise for every NAME above"),
    ("--help-all", "print all settings"),
]

_CHECKPOINT = [
    ("--config RUN/config.yaml", "the config in the folder of a run"),
    ("--ckpt_path PATH", "another checkpoint, a folder or a file; default: the last one of the run"),
    ("--trainer.accelerator NAME", "auto, cpu, gpu or mps; default: auto"),
]

PAGES = {
    "fit": (
        "--config FILE [--config FILE …] [--SETTING VALUE …]",
        "Recover the problems of a config, and write the results into one folder. Repeat the command to resume.",
        [
            "dop fit --config configs/image.yaml --data.images coffee --trainer.max_steps 500",
            "dop fit --config configs/matrix.yaml --trainer.default_root_dir runs/pca",
        ],
        {**_SETTINGS, "more": _MORE},
    ),
    "validate": (
        "--config RUN/config.yaml [--SETTING VALUE …]",
        "Score the last checkpoint of a run against the truth, if it is known. No file is written.",
        ["dop validate --config runs/pca/config.yaml"],
        {"options": [*_CHECKPOINT, *_MORE]},
    ),
    "test": (
        "--config RUN/config.yaml [--SETTING VALUE …]",
        "Score the last checkpoint of a run against the truth, if it is known. The same as dop validate.",
        ["dop test --config runs/pca/config.yaml"],
        {"options": [*_CHECKPOINT, *_MORE]},
    ),
    "predict": (
        "--config RUN/config.yaml [--SETTING VALUE …]",
        "Write the results of the last checkpoint of a run, one folder per problem.",
        ["dop predict --config runs/pca/config.yaml"],
        {"options": [*_CHECKPOINT, *_MORE]},
    ),
}
"""Usage, description, examples, and options by topic of each verb."""


def page(verb: str) -> str:
    """Return the text of ``dop VERB --help``."""
    usage, does, examples, sections = PAGES[verb]
    lines = [f"usage: dop {verb} {usage}", "", does, "", *(f"  {example}" for example in examples)]
    wide = max(len(option) for options in sections.values() for option, _ in options)
    for title, options in sections.items():
        lines += ["", f"{title}:", *(f"  {option:<{wide}}  {text}" for option, text in options)]
    return "\n".join(lines)


def run(verb: str, arguments: Sequence[str]) -> int:
    """Print the help page, or run the verb.

    Raises:
        ValueError: a setting is invalid.
    """
    if "-h" in arguments or "--help" in arguments:
        print(page(verb))
        return 0
    if verb == "fit" and any(argument.partition("=")[0] == "--cluster" for argument in arguments):
        return int(importlib.import_module("dop_lightning.cli.experiments.ray_fit").run(arguments))
    lightning = importlib.import_module("dop_lightning.cli.experiments.lightning_cli")  # seconds
    if any(argument.partition("=")[0].endswith(".help") for argument in arguments):
        help_of_parts = importlib.import_module("dop_lightning.cli.experiments.part_help")
        print(help_of_parts.page(lightning.parser_of(verb), verb, arguments, lightning.REFUSED))
        return 0
    return int(lightning.run(verb, ["--help" if argument == "--help-all" else argument for argument in arguments]))
