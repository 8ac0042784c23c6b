"""Convert names of metrics, parameters and pictures to names that a logger accepts."""

import re
import unicodedata
import zlib
from collections.abc import Mapping
from typing import Any

_REFUSED = re.compile(r"[^A-Za-z0-9_. -]")


def mlflow_key(key: str) -> str:
    """Return the MLflow name of a metric or picture such as ``psnr/photo``.

    MLflow stores metrics as files, and ``psnr`` and ``psnr/photo`` cannot coexist, so the slash after the tag becomes a
    dot. Accents are removed from letters. Any other character than A–Z, a–z, 0–9, ``_``, ``-``, ``.`` and the space
    becomes ``_``. If characters were changed, a checksum of the name is appended, so that names remain unique.

    Args:
        key: a tag, or a tag and the name of a problem, separated by a slash.

    >>> mlflow_key("psnr"), mlflow_key("psnr/photo-1"), mlflow_key("psnr/é/照片")
    ('psnr', 'psnr.photo-1', 'psnr.e___-5831')
    """
    tag, slash, name = key.partition("/")
    return _to_plain_name(tag) + ("." + _to_plain_name(name) if slash else "")


def mlflow_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested hyperparameters with flat names for MLflow, joined by slashes.

    >>> mlflow_parameters({"alpha": {"photo (1)": 3.0}, "noise": [{"class_path": "a.B"}], "seeds": [0, 1]})
    {'alpha/photo _1_-d88a': 3.0, 'noise/0/class_path': 'a.B', 'seeds': [0, 1]}
    """
    return {"/".join(map(_to_plain_name, path)): value for path, value in flat(parameters).items()}


def flat(parameters: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Return the values of nested dictionaries, and of lists of dictionaries, by path."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in parameters.items():
        if isinstance(value, list) and value and all(isinstance(inner, Mapping) for inner in value):
            value = {str(place): inner for place, inner in enumerate(value)}
        if isinstance(value, Mapping):
            found |= {(str(key), *path): inner for path, inner in flat(value).items()}
        else:
            found[(str(key),)] = value
    return found


def _to_plain_name(name: str) -> str:
    letters = [c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)]
    plain = _REFUSED.sub("_", "".join(letters))
    if not plain.strip(". "):  # not a valid file name
        plain = "_"
    return plain if plain == name else f"{plain}-{zlib.crc32(name.encode(errors='surrogatepass')) & 0xFFFF:04x}"
