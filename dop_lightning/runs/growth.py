"""Recognize a run that is started again, with the same problems or with additional ones."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from dop_lightning.problems.problem import Problem
from dop_lightning.runs.differences import Difference, differences, listed, show
from dop_lightning.runs.digests import RATES, common_settings, given_rates
from dop_lightning.runs.fingerprint import fingerprint, without_modules
from dop_lightning.runs.folder import VERSION, RunFolder, RunManifest
from dop_lightning.runs.request import RunRequest

Entry = dict[str, Any]
"""Entry of a problem in a manifest."""

_TILING = ("data.tile", "data.overlap")
"""Settings that determine the tiles of an image."""


@dataclass(frozen=True)
class KnownRun:
    """The part of a request that a run already contains.

    Attributes:
        fingerprint: fingerprint of the run at its first start.
        entries: manifest entry of each whole problem of the request; ``None`` for new problems.
        batches: names of the problems and tiles of each batch, without new problems.
        threads: number of threads per process; ``None`` if it was not recorded.
    """

    fingerprint: str
    entries: list[Entry | None]
    batches: list[list[str]]
    threads: int | None = None

    @property
    def names(self) -> dict[int, tuple[str, list[str]]]:
        """Names of known problems in the run, and names of their tiles, by position in the request."""
        known = ((place, entry) for place, entry in enumerate(self.entries) if entry is not None)
        return {place: (entry["name"], list(entry.get("tiles", []))) for place, entry in known}


def recognize(folder: RunFolder, request: RunRequest) -> KnownRun:
    """Find the problems of a request in the run of a folder, and check that settings and rates agree.

    Args:
        folder: folder of the run.
        request: settings and problems of this start.

    Raises:
        ValueError: settings or rates differ, a problem of the run is missing from the request or has changed, or the
            files are of another version.
        OSError: the manifest cannot be read.
    """
    comparison = _Comparison(folder, request)
    comparison.check_settings()
    known = comparison.problems()
    comparison.check_rates(known.entries)
    return known


def find_problems(folder: RunFolder, request: RunRequest) -> KnownRun:
    """Find the problems of a request in the run of a folder, without comparing other settings.

    Raises:
        ValueError: a problem of the run is missing from the request or has changed, or the files are of another
            version.
        OSError: the manifest cannot be read.
    """
    return _Comparison(folder, request).problems()


def recorded_rates(run: Path, problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Return the rates of each problem in the run of a folder; empty for new problems, and if there is no run.

    Errors are ignored here: an invalid folder is refused when the run starts.

    Args:
        run: folder of the run.
        problems: problems without tiles.
    """
    folder, request = RunFolder(run), RunRequest({}, problems, {})
    try:
        manifest = folder.check_resumable()
        entries, _ = match(manifest, request)
        if manifest.version >= VERSION:
            return [{} if entry is None else entry["rates"] for entry in entries]
        listed_rates = given_rates(folder.section(), [1] * len(manifest.problems))
        names = [entry["name"] for entry in manifest.problems]
        return [{} if entry is None else listed_rates[names.index(entry["name"])] for entry in entries]
    except (OSError, ValueError):
        return [{} for _ in problems]


def match(manifest: RunManifest, request: RunRequest) -> tuple[list[Entry | None], list[Entry]]:
    """Match the problems of a run to those of a request, independent of their names and order.

    Problems match if attributes, seed and digest are equal. Files of version 2 have no digests; their shapes are
    compared instead. Equal problems are matched in order.

    Returns:
        The entry of each whole problem of the request, ``None`` for new ones; and the entries missing from the request.
    """
    has_digests = manifest.version >= VERSION
    waiting: dict[str, list[Entry]] = defaultdict(list)
    for entry in manifest.problems:
        waiting[_identity(entry, entry.get("mark" if has_digests else "shape"))].append(entry)
    entries: list[Entry | None] = []
    for place, whole in enumerate(request.wholes):
        content = request.digests[place] if has_digests else list(whole.shape)
        same = waiting[_identity(_entry_of(whole), content)]
        entries.append(same.pop(0) if same else None)
    return entries, [entry for same in waiting.values() for entry in same]


def _entry_of(whole: Problem) -> Entry:
    return {"attributes": dict(whole.attributes), "seed": whole.seed}


def _identity(entry: Mapping[str, Any], content: object = None) -> str:
    return json.dumps([entry.get("attributes", {}), entry.get("seed"), content], sort_keys=True)


@dataclass
class _Comparison:
    """Compare a run with a request. Each method raises ``ValueError`` if they disagree."""

    folder: RunFolder
    request: RunRequest
    manifest: RunManifest = field(init=False)
    saved: dict[str, Any] = field(init=False)
    damage: ValueError | None = field(init=False)

    def __post_init__(self) -> None:
        self.saved, self.damage = {}, None
        try:
            self.saved = self.folder.section()
        except OSError:  # an earlier start was stopped before it wrote the config
            pass
        except ValueError as error:
            self.damage = error
        # read after the config: another process of this start writes the manifest first
        self.manifest = self.folder.check_resumable()

    @property
    def _has_digests(self) -> bool:
        return self.manifest.version >= VERSION

    def _refuse(self, *reasons: object) -> NoReturn:
        raise ValueError(
            f"{self.folder.path}: holds another run ({listed(reasons)}); choose another folder, or remove that one"
        )

    def check_settings(self) -> None:
        """Compare the settings that apply to all problems."""
        if self._has_digests and self.manifest.settings == self.request.settings_digest:
            return
        if self.damage is not None:
            raise ValueError(
                f"{self.damage}; its copy cannot be read either, so the settings of the run cannot be compared: choose "
                f"another folder, or remove {self.folder.path}"
            )
        if not self.saved and not self._has_digests:
            return  # the fingerprint is compared instead
        of_run = common_settings(self.saved, self.request.growing)
        if different := list(differences(of_run, self.request.settings)):
            self._refuse(*different)
        if self._has_digests:
            self._refuse(f"its settings differ, see {self.folder.config_path}")

    def problems(self) -> KnownRun:
        """Find the problems of the run in the request, which must contain all of them."""
        entries, missing = match(self.manifest, self.request)
        if missing:
            self._refuse_missing(entries, missing)
        if not self._has_digests:
            entries = self._with_rates(entries)
        return KnownRun(self.manifest.fingerprint, entries, self.manifest.batches, self.manifest.threads)

    def _refuse_missing(self, entries: list[Entry | None], missing: list[Entry]) -> NoReturn:
        before, now = (without_modules(config.get("data") or {}) for config in (self.saved, self.request.config))
        different = list(differences(before, now, "data"))
        new = [place for place, entry in enumerate(entries) if entry is None]
        for entry in missing:
            alike = [k for k in new if _identity(_entry_of(self.request.wholes[k])) == _identity(entry)]
            if alike:
                self._refuse_changed(entry, alike, different)
        if different and not any(entries):
            self._refuse(*different)
        because = f" ({listed(different)})" if different else ""
        raise ValueError(
            f"{self.folder.path}: holds problems that are not given: {listed([entry['name'] for entry in missing])}"
            f"{because}; specify them as well, or choose another folder"
        )

    def _refuse_changed(self, entry: Entry, places: list[int], different: list[Difference]) -> NoReturn:
        """Refuse problems with the attributes and the seed of an entry, but another digest."""
        whole_digests = [self.request.digests[place].partition("-")[0] for place in places]
        tiling = [each for each in different if each.key in _TILING]
        if tiling and entry.get("mark", "").partition("-")[0] in whole_digests:
            self._refuse(*tiling)
        paths = [getattr(self.request.wholes[place].source, "path", None) for place in places]
        reasons = [*paths[: len(paths) == 1], *(each for each in different if each.key == "data.mask")]
        where = f" ({listed([reason for reason in reasons if reason is not None])})" if any(reasons) else ""
        raise ValueError(
            f"{self.folder.path}: the data of {entry['name']} have changed since the run was started{where}; restore "
            "them, or choose another folder"
        )

    def check_rates(self, entries: list[Entry | None]) -> None:
        """Compare the rates of the problems of the run."""
        known = [(entry, rates) for entry, rates in zip(entries, self.request.rates, strict=True) if entry is not None]
        for key in RATES:
            both = [(entry["name"], entry["rates"].get(key), rates[key]) for entry, rates in known]
            different = [(name, saved, given) for name, saved, given in both if saved != given]
            values = {(show(saved), show(given)) for _, saved, given in both}
            if different and len(values) == 1:  # the same for all problems
                self._refuse(Difference(f"model.{key}", *different[0][1:]))
            if different:
                self._refuse(*(Difference(f"model.{key} of {name}", saved, given) for name, saved, given in different))

    def _with_rates(self, entries: list[Entry | None]) -> list[Entry | None]:
        """Check the fingerprint of a run of version 2, which has no digests, and add the rates of its problems."""
        place_of = {entry["name"]: place for place, entry in enumerate(entries) if entry is not None}
        places = [place_of[entry["name"]] for entry in self.manifest.problems]
        problems: list[Problem] = []
        for entry, place in zip(self.manifest.problems, places, strict=True):
            parts, names = self.request.parts(place), entry.get("tiles", [entry["name"]])
            if len(parts) != len(names):
                self._refuse(f"{entry['name']}: {len(names)} tiles in the run, {len(parts)} given")
            problems += [replace(part, name=name) for part, name in zip(parts, names, strict=True)]
        configs = (self.request.config, self.saved)
        config = next((each for each in configs if fingerprint(each, problems) == self.manifest.fingerprint), None)
        if config is None:
            self._refuse(f"its settings or data differ, see {self.folder.config_path}")
        rates = dict(zip(places, given_rates(config, [len(self.request.parts(k)) for k in places]), strict=True))
        return [None if entry is None else {**entry, "rates": rates[place]} for place, entry in enumerate(entries)]
