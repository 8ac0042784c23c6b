"""Skip work of Sphinx that has no effect on the site: parsing other packages, and searching for their names."""

from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import ObjectEntry, PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer

PACKAGE = "dop_lightning"


class OwnNames(PythonDomain):
    """The Python domain, which compares a name with all entries only if one of them ends with it."""

    _ends: tuple[int, frozenset[str]] = (0, frozenset())

    def find_obj(
        self, env: BuildEnvironment, modname: str, classname: str, name: str, type: str | None, searchmode: int = 0
    ) -> list[tuple[str, ObjectEntry]]:
        """Find an entry like the domain itself."""
        if self._ends[0] != len(self.objects):
            self._ends = len(self.objects), frozenset(entry.rpartition(".")[2] for entry in self.objects)
        if name.removesuffix("()").rpartition(".")[2] not in self._ends[1]:
            return []
        return super().find_obj(env, modname, classname, name, type, searchmode)


def analyze_own_modules() -> None:
    """Find comments in the source of this package only: members of other packages are not documented."""
    analyze = ModuleAnalyzer.for_module.__func__  # type: ignore[attr-defined]

    def for_module(cls: type[ModuleAnalyzer], modname: str) -> ModuleAnalyzer:
        if modname.split(".")[0] != PACKAGE:
            raise PycodeError(f"{modname} is not documented")
        return analyze(cls, modname)

    ModuleAnalyzer.for_module = classmethod(for_module)  # type: ignore[assignment]


def setup(app: Sphinx) -> dict[str, Any]:
    """Replace the domain and the analyzer."""
    app.add_domain(OwnNames, override=True)
    analyze_own_modules()
    return {"parallel_read_safe": True, "parallel_write_safe": True}
