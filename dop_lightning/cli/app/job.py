"""A job: one file that is restored or separated, with its settings, its folder and its state."""

import json
import re
import secrets
import shlex
import unicodedata
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from dop_lightning.cli.app.settings import Kind, options
from dop_lightning.foundation.atomic import atomic_text

State = Literal["ready", "waiting", "running", "stopping", "stopped", "done", "failed"]
"""``ready`` has not been started; ``stopped`` can go on from its saved state."""

OWN = ".app"
"""Folder of what belongs to the page, beside the file and the results. No uploaded file begins with a dot."""

RECORD = f"{OWN}/job.json"

LONGEST_NAME = 120
"""Characters of the name of a file that are kept."""


def file_name(given: str) -> str:
    r"""Return the name of an uploaded file without folders and without characters that have a meaning in paths.

    >>> file_name("../../etc/passwd"), file_name("C:\\scans\\my photo.png"), file_name("-v[1]*.png")
    ('passwd', 'my photo.png', '_v_1__.png')
    """
    name = unicodedata.normalize("NFC", given).replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(c if c.isprintable() and c not in '*?[]:"<>|' else "_" for c in name).strip()
    name = name.encode("utf-8", "replace").decode()
    name = re.sub(r"^[-.~]+", "_", name) or "file"
    if re.fullmatch(r"(mask|undamaged)-\d+\.png|(restored|parts)(-\d+)?", name):
        name = f"_{name}"  # names of masks and of folders of results
    suffix = Path(name).suffix[:20]
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - len(suffix)] + suffix


@dataclass
class Job:
    """One file on its way.

    Attributes:
        folder: of its own: the file, and a folder of results per attempt.
        session: of the page that it belongs to; empty for one of an earlier start.
        kind: ``recover`` or ``separate``.
        name: of the file.
        settings: that are not those of the command line.
        attempt: number of the folder of results, from 1 on: other settings or corrections need another one.
        state: see :data:`State`.
        has_run: whether the attempt has been started.
        line: what is wrong, in one line.
        found: what the file holds, by :mod:`~dop_lightning.cli.app.examine`.
        corrected: attempts with a corrected map: whether there are pixels painted as damaged, and as undamaged.
    """

    folder: Path
    session: str
    kind: Kind
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    attempt: int = 1
    state: State = "ready"
    has_run: bool = False
    line: str = ""
    found: dict[str, Any] = field(default_factory=dict)
    corrected: tuple[bool, bool] = (False, False)

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def file(self) -> Path:
        """The uploaded file."""
        return self.folder / self.name

    @property
    def log(self) -> Path:
        """What the command has printed in this attempt."""
        return self.folder / OWN / f"log-{self.attempt}.txt"

    @property
    def out(self) -> str:
        """The name of the folder of results."""
        stem = {"recover": "restored", "separate": "parts"}[self.kind]
        return stem if self.attempt == 1 else f"{stem}-{self.attempt}"

    @property
    def run(self) -> Path:
        """The folder of results."""
        return self.folder / self.out

    def mask(self, what: str) -> Path:
        """Return the file of a mask of this attempt: ``mask`` or ``undamaged``."""
        return self.folder / f"{what}-{self.attempt}.png"

    @property
    def arguments(self) -> list[str]:
        """The arguments of ``dop``, to be run in its folder."""
        masks: list[str] = []
        for what, is_there in zip(("mask", "undamaged"), self.corrected, strict=True):
            masks += [f"--{what}", self.mask(what).name] if is_there else []
        return [self.kind, self.name, "--out", self.out, *masks, *options(self.settings)]

    @property
    def command(self) -> str:
        """The command line that repeats it."""
        return shlex.join(["dop", *self.arguments])

    def save(self) -> None:
        """Write the record, from which a later start knows the job."""
        record = {key: value for key, value in asdict(self).items() if key not in ("folder", "session")}
        (self.folder / OWN).mkdir(exist_ok=True)
        atomic_text(self.folder / RECORD, json.dumps(record, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the job of a folder, of no session. One that was at work is ``stopped``.

        Raises:
            ValueError: the folder holds no job.
            OSError: the record cannot be read.
        """
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        known = {key: record[key] for key in cls.__dataclass_fields__ if key in record}
        job = cls(folder=folder, session="", **{**known, "corrected": tuple(known["corrected"])})
        if job.kind not in ("recover", "separate") or job.name != file_name(job.name) or not job.file.is_file():
            raise ValueError(f"{folder}: holds no job of dop app")
        job.found.setdefault("damaged", None)  # the estimate may not have come to its end
        if job.state in ("waiting", "running", "stopping"):
            job.state = "stopped" if job.has_run else "ready"
        return job


def new_id() -> str:
    """Return a random name of a job."""
    return secrets.token_hex(8)
