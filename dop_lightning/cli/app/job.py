"""A job: one file to restore or separate, with its settings, folder and state."""

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
"""``ready`` jobs have not been started; ``stopped`` jobs can resume from their saved state."""

PAGE_FOLDER = ".app"
"""Folder for files of the page, in the folder of the job. Names of uploaded files never start with a dot."""

RECORD = f"{PAGE_FOLDER}/job.json"

LONGEST_NAME = 120
"""Maximum number of characters of a file name."""


def file_name(given: str) -> str:
    r"""Return the name of an uploaded file without folders and characters that are special in paths.

    >>> file_name("../../etc/passwd"), file_name("C:\\scans\\my photo.png"), file_name("-v[1]*.png")
    ('passwd', 'my photo.png', '_v_1__.png')
    """
    name = unicodedata.normalize("NFC", given).replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(c if c.isprintable() and c not in '*?[]:"<>|' else "_" for c in name).strip()
    name = name.encode("utf-8", "replace").decode()
    name = re.sub(r"^[-.~]+", "_", name) or "file"
    if re.fullmatch(r"(mask|undamaged)-\d+\.png|(restored|parts)(-\d+)?", name):
        name = f"_{name}"  # reserved for masks and result folders
    suffix = Path(name).suffix[:20]
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - len(suffix)] + suffix


@dataclass
class Job:
    """One file with its settings, results and state.

    Attributes:
        folder: folder of the job, with the file, and one folder of results per attempt.
        session: session of the page that the job belongs to; empty for jobs of an earlier start.
        kind: ``recover`` or ``separate``.
        name: name of the file.
        settings: settings that differ from the defaults of the command line.
        attempt: number of the folder of results, from 1; other settings or corrections start a new attempt.
        state: see :data:`State`.
        has_run: whether the attempt has been started.
        line: error message in one line, if any.
        found: content of the file, see :mod:`~dop_lightning.cli.app.examine`.
        corrected: whether the corrected map has pixels painted as damaged, and as undamaged.
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
        """Name of the folder of the job."""
        return self.folder.name

    @property
    def file(self) -> Path:
        """Path of the uploaded file."""
        return self.folder / self.name

    @property
    def log(self) -> Path:
        """File with the output of the command in this attempt."""
        return self.folder / PAGE_FOLDER / f"log-{self.attempt}.txt"

    @property
    def out(self) -> str:
        """Name of the folder of results."""
        stem = {"recover": "restored", "separate": "parts"}[self.kind]
        return stem if self.attempt == 1 else f"{stem}-{self.attempt}"

    @property
    def run(self) -> Path:
        """Folder of results."""
        return self.folder / self.out

    def mask(self, what: str) -> Path:
        """Return the path of a mask of this attempt; ``what`` is ``mask`` or ``undamaged``."""
        return self.folder / f"{what}-{self.attempt}.png"

    @property
    def arguments(self) -> list[str]:
        """Arguments of ``dop``, which runs in the folder of the job."""
        masks: list[str] = []
        for what, is_corrected in zip(("mask", "undamaged"), self.corrected, strict=True):
            masks += [f"--{what}", self.mask(what).name] if is_corrected else []
        return [self.kind, self.name, "--out", self.out, *masks, *options(self.settings)]

    @property
    def command(self) -> str:
        """Command line that reproduces the result."""
        return shlex.join(["dop", *self.arguments])

    def save(self) -> None:
        """Write the record of the job, which a later start reads."""
        record = {key: value for key, value in asdict(self).items() if key not in ("folder", "session")}
        (self.folder / PAGE_FOLDER).mkdir(exist_ok=True)
        atomic_text(self.folder / RECORD, json.dumps(record, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the job of a folder, without a session. A job that was running is ``stopped``.

        Raises:
            ValueError: the folder contains no job.
            OSError: the record cannot be read.
        """
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        known = {key: record[key] for key in cls.__dataclass_fields__ if key in record}
        job = cls(folder=folder, session="", **{**known, "corrected": tuple(known["corrected"])})
        if job.kind not in ("recover", "separate") or job.name != file_name(job.name) or not job.file.is_file():
            raise ValueError(f"{folder}: contains no job of dop app")
        job.found.setdefault("damaged", None)  # the estimate may not have finished
        if job.state in ("waiting", "running", "stopping"):
            job.state = "stopped" if job.has_run else "ready"
        return job


def new_id() -> str:
    """Return a random name for a job."""
    return secrets.token_hex(8)
