"""Old names of modules, functions, classes and constants, which work with a ``DeprecationWarning`` until version 0.3.

In version 0.1, all modules were at the root of the package; others were renamed during the development of version 0.2.
:func:`install` adds a finder to :data:`sys.meta_path` that resolves ``import dop_lightning.noise``, ``from
dop_lightning.noise import SaltAndPepper`` and the class paths of YAML files to the current modules. An old name gives
the same module object as the new one, so that classes are identical.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

from dop_lightning.foundation.names_of_0_2 import MODULES_OF_0_2, NAMES_OF_0_2

TYPE_CHECKING = False  # as in dop_lightning/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
else:
    Loader = object  # importing the real one takes longer than everything else that `dop --help` needs

PACKAGE = "dop_lightning"
REMOVAL = "0.3"
"""Version in which the old names are removed."""

LAZY = "dop_lightning.foundation.lazy"
"""Module that looks up the old names of packages."""

MODULES = {
    "alpha": "engine.alpha",
    "alpha_search": "matrices.alpha_search",
    "amounts": "foundation.units",
    "api.devices": "foundation.devices",
    "api.image_objects": "images.image_objects",
    "api.interrupt": "images.interrupt",
    "api.progress": "images.progress",
    "api.recover": "images.recover",
    "api.recovery": "images.recovery",
    "api.robust_pca": "matrices.robust_pca",
    "background": "matrices.scenes.background",
    "batching": "lightning.strategies.batching",
    "callbacks": "lightning.callbacks",
    "callbacks.checkpoint_io": "lightning.checkpoint_io",
    "callbacks.certificate": "paper.certificate_callback",
    "callbacks.hparams": "lightning.loggers.hparams",
    "callbacks.sample": "lightning.sample",
    "checks": "foundation.checks",
    "commands.doctor": "cli.doctor.command",
    "commands.experiment": "cli.experiments.help",
    "commands.figure": "cli.figure",
    "commands.lightning": "cli.experiments.lightning_cli",
    "commands.messages": "cli.messages",
    "commands.options": "cli.options",
    "commands.presets": "cli.configs.preset_times",
    "commands.recover": "cli.configs.recover",
    "commands.recover_options": "cli.recover",
    "commands.report": "cli.report",
    "commands.runner": "cli.experiments.runner",
    "commands.separate": "cli.separate",
    "commands.separations": "cli.configs.separate",
    "commands.suggestions": "cli.suggestions",
    "commands.sweep": "cli.sweep",
    "commands.table": "cli.table",
    "convex": "engine.convex",
    "corruption": "model.corruption",
    "cost": "images.cost",
    "data": "lightning.data",
    "data.frames": "lightning.data.scenes",
    "doctor": "cli.doctor",
    "figures": "paper.figures",
    "figures.style": "foundation.plotting",
    "files.arrays": "matrices.arrays",
    "files.atomic": "foundation.atomic",
    "files.find": "foundation.find",
    "files.frames": "matrices.scenes",
    "files.frames.base": "matrices.scenes.frames",
    "files.histograms": "runs.histograms",
    "files.images": "images.formats",
    "files.locks": "runs.locks",
    "files.pictures": "images.pictures",
    "files.tables": "matrices.tables",
    "graphs": "engine.graphs",
    "hints": "cli.hints",
    "kernels": "model.signals.unet.kernels",
    "kernels.compiled": "foundation.native.compiled",
    "memory": "engine.measure",
    "metrics": "problems.metrics",
    "module": "lightning.module",
    "muon": "engine.optim.muon",
    "naming": "foundation.names",
    "noise": "problems.noise",
    "objective": "model.losses",
    "operators": "model.operators",
    "optim": "engine.optim.discrepant_sgd",
    "optim_state": "engine.optim.state",
    "outcome": "engine.outcome",
    "parts": "model.part",
    "plan": "lightning.strategies.plan",
    "presets": "images.presets",
    "randomness": "problems.randomness",
    "recovery_callback": "lightning.recovery_callback",
    "regression": "engine.robust_codes",
    "reporting.html": "runs.report",
    "reporting.many": "runs.tables.comparison",
    "reporting.merge": "runs.curves",
    "reporting.mosaics": "runs.mosaics",
    "reporting.results": "runs.results",
    "reporting.seeds": "runs.tables.seeds",
    "reporting.summary": "runs.tables.summary",
    "roster": "engine.roster",
    "runtime": "foundation.machine",
    "scoring": "problems.scoring",
    "separation": "matrices.separation",
    "signals": "model.signals",
    "signals.fused_unet": "model.signals.unet.fused_unet",
    "signals.skip_network": "model.signals.unet.skip_network",
    "signals.skip_unet": "model.signals.unet.skip_unet",
    "spread": "foundation.spread",
    "steps": "engine.steps",
    "steps.automatic": "engine.automatic",
    "stopping": "engine.stopping",
    "strategies": "lightning.strategies",
    "strategies.launched": "foundation.launched",
    "streams": "model.signals.unet.streams",
    "support": "engine.steps.clean_entries",
    "sweeps": "runs.sweeps",
    "theory": "paper.theory",
    "tiling": "images.tiles",
}
"""Current modules by their old names. Submodules move with their package, unless they are listed separately."""

NAMES = {
    "alpha": {"ADAM": "engine.optim.pace"},
    "amounts": {"in_bytes": "foundation.units:format_bytes", "in_words": "foundation.units:format_duration"},
    "api": dict.fromkeys(("Recovery", "RobustPCA", "recover_image"), ""),
    "api.devices": {"settle_device": "foundation.devices:resolve_device"},
    "batching": {"SHARE_OF_MEMORY": "lightning.strategies.batching:MEMORY_FRACTION"},
    "callbacks": {"DualCertificate": "paper.certificate_callback"},
    "cli": {},
    "commands": {},
    "cost": {
        "SHARE_OF_MEMORY": "images.cost:MEMORY_FRACTION",
        "seconds_an_iteration": "engine.measure:seconds_per_iteration",
    },
    "engine": {
        "advance": "engine.descent",
        **dict.fromkeys(("CorruptionFactory", "OperatorFactory", "SignalFactory"), "engine.descent"),
        "ThetaOptimizer": "engine.optim.factory",
        "one_a_problem": "engine.state:one_per_problem",
    },
    "files": {
        **dict.fromkeys(("MATRIX_SUFFIXES", "read_matrix"), "matrices.arrays"),
        **dict.fromkeys(("atomic_json", "atomic_text", "write_atomically"), "foundation.atomic"),
        "find_files": "foundation.find",
        **dict.fromkeys(("comparison", "corruption_map", "heatmap", "recovery_pictures"), "images.pictures"),
        **dict.fromkeys(
            (
                *("IMAGE_SUFFIXES", "Channels", "ImageFormat", "LoadedImage", "find_images", "image_shape"),
                *("read_image", "read_mask", "sample_folder", "sample_names", "write_image", "write_pixels"),
            ),
            "images.formats",
        ),
    },
    "graphs": {"make_capturable": "engine.optim.capturable"},
    "problems": {
        **dict.fromkeys(("Attribute", "form_batches", "rename", "scale"), "problems.problem"),
        "of_one_shape": "problems.problem:group_by_shape",
    },
    "reporting": {},
    "reporting.many": {"find_runs": "runs.find"},
    "runs": {
        **dict.fromkeys(
            ("CONFIG", "MANIFEST", "default_folder", "planned_batches", "saved_settings"),
            "runs.folder",
        ),
        "DATA_WITHOUT_EFFECT": "runs.fingerprint",
        **dict.fromkeys(("claim", "write_manifest"), "runs.manifest"),
    },
    "presets": {"START": "images.presets:IMAGE_START"},
    "steps.base": {"StepRule": "engine.descent"},
    "steps.automatic": dict.fromkeys(("Monitor", "TOLERANCE", "WATCH_EVERY"), "engine.steps.monitor"),
}
"""Current modules of old names that did not move with their module, or whose module is now a package of that name.

If the name itself changed, the new name follows the module after a colon.
"""

MODULES.update(MODULES_OF_0_2)

SCATTERED = ("api", "commands", "files", "reporting")
"""Old packages whose modules moved to several packages."""


def new_name(old: str) -> str | None:
    """Return the current name of an old module, or ``None`` if unknown; both without the name of the package."""
    head, tail = old, ""
    while head not in MODULES:
        head, dot, last = head.rpartition(".")
        if not dot:
            return None
        tail = f".{last}{tail}"
    return MODULES[head] + tail


def _entry_of(module: str, name: str) -> str | None:
    """Return the entry of an old name in :data:`NAMES`, or that of a name that changed in its module."""
    if (place := NAMES.get(module, {}).get(name)) is not None:
        return place
    current = new_name(module) or module
    renamed = NAMES_OF_0_2.get(current, {}).get(name)
    if renamed is not None:
        return f"{current}:{renamed}"
    return next((NAMES[old][name] for old in NAMES if name in NAMES[old] and new_name(old) == current), None)


def new_class_path(path: str) -> str:
    """Return the current class path for an old one. Other class paths are returned unchanged.

    >>> new_class_path("dop_lightning.noise.GrossOutliers")
    'dop_lightning.problems.noise.GrossOutliers'
    """
    module, _, name = path.removeprefix(f"{PACKAGE}.").rpartition(".")
    place = _entry_of(module, name) or new_name(module)
    if place is None or not path.startswith(f"{PACKAGE}."):
        return path
    return ".".join(_current_place(place, name))


def _current_place(place: str, name: str) -> tuple[str, str]:
    """Return the current module and name for an entry of :data:`NAMES`."""
    module, _, renamed = place.partition(":")
    return f"{PACKAGE}.{module}".rstrip("."), renamed or name


def new_class_paths(config: str) -> str:
    """Replace old class paths in a YAML text by the current ones."""
    import re

    return re.sub(r"(?<=\bclass_path: )[\w.]+", lambda match: new_class_path(match[0]), config)


def moved_name(module: str, name: str) -> object:
    """Return an object by its old name.

    Raises:
        AttributeError: the module did not have this name.
    """
    place = _entry_of(module.removeprefix(f"{PACKAGE}."), name)
    if place is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    from importlib import import_module

    new, new_name = _current_place(place, name)
    _warn(f"{module}.{name}", f"{new}.{new_name}")
    found = getattr(import_module(new), new_name)
    setattr(sys.modules[module], name, found)  # warn once
    return found


def install() -> None:
    """Enable imports of old names."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())  # first: other finders would find the file and load it a second time


class MovedModules:
    """Finder of modules by their old names, and of modules that have old names of their content."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of an old name, or of a module with old names; ``None`` for all others."""
        package, _, old = name.partition(".")
        if package != PACKAGE:
            return None
        if old in SCATTERED:
            return ModuleSpec(name, _Scattered(), is_package=True)
        if old in NAMES_OF_0_2 and target is None:
            spec = PathFinder.find_spec(name, path)
            if spec is not None and type(spec.loader) is SourceFileLoader:
                spec.loader = _WithOldNames(name, spec.loader.path)
            return spec
        new = new_name(old)
        return None if new is None else ModuleSpec(name, _Alias(old, new))


class _Alias(Loader):
    """Loader that imports the current module under the old name."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def create_module(self, spec: ModuleSpec) -> None:
        """Return ``None``, so that Python creates an empty module, which is replaced later."""

    def exec_module(self, module: ModuleType) -> None:
        """Import the current module. Modules that moved with their package do not warn again."""
        from importlib import import_module

        if self.old in MODULES:
            _warn(module.__name__, f"{PACKAGE}.{self.new}")
        found = import_module(f"{PACKAGE}.{self.new}")
        if self.old in NAMES:
            found.__dict__.setdefault("__getattr__", _name_lookup(module.__name__))
        sys.modules[module.__name__] = found


class _WithOldNames(SourceFileLoader):
    """Loader of a current module that adds a ``__getattr__`` for the old names of its content."""

    def exec_module(self, module: ModuleType) -> None:
        """Load the module."""
        super().exec_module(module)
        module.__dict__.setdefault("__getattr__", _name_lookup(module.__name__))


class _Scattered(Loader):
    """Loader of an old module whose names are now in several modules."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Return ``None``, so that Python creates an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Add a ``__getattr__`` that looks up old names."""
        module.__doc__ = f"Old names, to be removed in version {REMOVAL}."
        module.__dict__["__getattr__"] = _name_lookup(module.__name__)
        module.__dict__["__all__"] = sorted(NAMES[module.__name__.removeprefix(f"{PACKAGE}.")])


def _name_lookup(module: str) -> "Callable[[str], object]":
    return lambda name: moved_name(module, name)


def show_warnings() -> None:
    """Show these warnings in the command. Python hides them by default if a library imports a class path."""
    import warnings

    warnings.filterwarnings("default", rf"{PACKAGE}\.", DeprecationWarning)


def make_callable(name: str, function: "Callable[..., object]") -> None:
    """Make a module callable, because version 0.1 had a function with its name."""

    class CallableModule(ModuleType):
        def __call__(self, *arguments: object) -> object:
            _warn(name, f"{name}.{function.__name__}")
            return function(*arguments)

    sys.modules[name].__class__ = CallableModule


def _warn(old: str, new: str) -> None:
    """Warn at the line that imports or uses the old name, skipping the frames of the import system."""
    import warnings

    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_globals.get("__name__") in (__name__, LAZY) or "importlib" in frame.f_code.co_filename
    ):
        frame = frame.f_back
    warnings.warn_explicit(
        f"{old} is now {new}; the old name will be removed in version {REMOVAL}",
        DeprecationWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )
