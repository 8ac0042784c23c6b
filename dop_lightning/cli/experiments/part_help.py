"""``dop fit --KEY.help [NAME]``: print the settings of a section, or of a class that a setting accepts.

``--model.help`` lists a section, ``--model.signal.help`` the available classes, and ``--model.signal.help SkipUNet``
the settings of one of them. Configs and other options select classes as in a run:
``--data MatrixDataModule --data.noise.help``.
"""

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from jsonargparse import ArgumentParser

from dop_lightning.cli.experiments.class_names import ClassNameError, find_class, known_classes
from dop_lightning.cli.experiments.mistakes import Settings
from dop_lightning.cli.experiments.schema import Setting, children, settings_of_class
from dop_lightning.cli.experiments.sources import sources
from dop_lightning.foundation.nearest import nearest

HELP = ".help"
WIDEST = 110
"""Maximum number of characters per line."""


def wanted(arguments: Sequence[str]) -> tuple[str, str, list[str]]:
    """Return the requested key, the name of a class (empty if none), and the other arguments.

    >>> wanted(["--config", "a.yaml", "--model.signal.help", "SkipUNet"])
    ('model.signal', 'SkipUNet', ['--config', 'a.yaml'])
    >>> wanted(["--model.help"])
    ('model', '', [])
    """
    place = next(i for i, argument in enumerate(arguments) if argument.partition("=")[0].endswith(HELP))
    option, equals, name = arguments[place].partition("=")
    rest = list(arguments[place + 1 :])
    if not equals and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
    return option.removeprefix("--").removesuffix(HELP), name, [*arguments[:place], *rest]


def page(parser: ArgumentParser, verb: str, arguments: Sequence[str], refused: Mapping[str, str]) -> str:
    """Return a page of help.

    Args:
        parser: parser of all settings.
        verb: the verb, for the usage line.
        arguments: arguments after the verb, including ``--KEY.help``.
        refused: Trainer flags that are not supported, with the reason.

    Raises:
        ValueError: the section, setting or class does not exist.
    """
    key, name, others = wanted(arguments)
    settings = Settings(parser)
    settings.check(list(sources(others)))
    known, prefix, setting = _find_setting(settings, key)
    if name and (setting is None or not setting.bases):
        raise ValueError(f"--{key}{HELP} does not accept a name, got {name!r}")
    if setting is None:
        title = (parser.groups or {})[key].title or ""
        lines = [f"[--{key}.SETTING VALUE …]", "", *_description(title), *_setting_lines(known, prefix, key, refused)]
    elif not setting.bases:
        lines = [f"--{key} VALUE", "", *_describe_setting(setting, key, refused)]
    elif not name:
        lines = [f"--{key} NAME", "", *_describe_setting(setting, key, refused), "", *_available_classes(setting, key)]
    else:
        lines = [f"--{key} {name} [--{key}.SETTING VALUE …]", "", *_class_lines(setting, key, name)]
    return "\n".join([f"usage: dop {verb} … {lines[0]}", *lines[1:]])


def _class_lines(setting: Setting, key: str, name: str) -> Iterator[str]:
    """Yield the lines about a class, given its name."""
    try:
        cls = find_class(name, setting.bases, setting.factory_arguments is not None)
    except ClassNameError as error:
        raise ValueError(f"--{key}{HELP}: {error}") from error
    yield from _description(inspect.getdoc(cls) or "")
    own = settings_of_class(cls, setting.factory_arguments or 0)
    yield from _setting_lines(own, "", key, {})
    yield from ("", "In a config, put these settings below init_args.") if own else ("This class has no settings.",)


def _find_setting(settings: Settings, key: str) -> tuple[Mapping[str, Setting], str, Setting | None]:
    """Return the settings that contain a key, its prefix if it is a section, and the setting if it is one."""
    known: Mapping[str, Setting] = settings.known
    prefix, at = "", ""
    for part in key.split("."):
        if part in ("init_args", "class_path"):
            continue
        setting = known.get(prefix.rstrip("."))
        if setting is not None:  # a class, followed by one of its arguments
            cls = settings.class_at(setting, at) or (setting.bases[0] if setting.bases else None)
            if cls is None:
                raise ValueError(f"--{at} has no settings, got --{key}{HELP}")
            known, prefix = settings_of_class(cls, setting.factory_arguments or 0), ""
        names = children(known, prefix)
        if part not in names:
            start = f"--{at}." if at else "--"
            close = nearest(part, names)
            raise ValueError(
                f"there is no setting {start}{part}" + (f"; did you mean {start}{close}?" if close else "")
            )
        at, prefix = f"{at}.{part}" if at else part, f"{prefix}{part}."
    return known, prefix, known.get(prefix.rstrip("."))


def _setting_lines(known: Mapping[str, Setting], prefix: str, key: str, refused: Mapping[str, str]) -> Iterator[str]:
    for name, setting in known.items():
        if name.startswith(prefix):
            inner = f"{key}.{name.removeprefix(prefix)}"
            yield from _describe_setting(setting, inner, refused)
            if setting.bases and not setting.takes_text:
                yield f"      --{inner}{HELP} lists the classes."


def _describe_setting(setting: Setting, key: str, refused: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines about a setting."""
    default = _format_default(setting)
    head = f"--{key}: {setting.describe()}{f'; default: {default}' if default else ''}"
    yield from textwrap.wrap(head, _terminal_width(), initial_indent="  ", subsequent_indent="    ")
    section, _, flag = key.rpartition(".")
    if section == "trainer" and flag in refused:
        yield from _wrap(f"Not supported: {refused[flag]}.", 6)
    elif "One or more arguments specifying" not in setting.help:  # jsonargparse's placeholder
        yield from _wrap(_without_markup(setting.help), 6)


def _format_default(setting: Setting) -> str:
    value = setting.default
    if hasattr(value, "get") and isinstance(value.get("class_path"), str):
        return str(value["class_path"].rpartition(".")[2])
    if value is None:
        return "null" if type(None) in setting.alternatives else ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _available_classes(setting: Setting, key: str) -> Iterator[str]:
    known = known_classes(setting.bases)
    yield f"--{key}{HELP} NAME lists the settings of one of these, or of your own class by module.NAME:"
    widest = max(map(len, known), default=0)
    for name in sorted(known):
        first = _without_markup(inspect.getdoc(known[name]) or "").partition("\n\n")[0]
        lines = textwrap.wrap(" ".join(first.split()), _terminal_width() - widest - 4) or [""]
        yield f"  {name:<{widest}}  {lines[0]}".rstrip()
        yield from (" " * (widest + 4) + line for line in lines[1:])


def _description(text: str) -> Iterator[str]:
    """Yield the description in a docstring, without its sections and examples."""
    head = re.split(r"^\s*(?:[A-Z][a-z]+:|\.\. |>>> )", text, maxsplit=1, flags=re.MULTILINE)[0]
    for paragraph in _without_markup(head).strip().split("\n\n"):
        if paragraph.strip():
            yield from _wrap(f"{paragraph.rstrip().rstrip('.:')}.", 0)
            yield ""


def _without_markup(text: str) -> str:
    """Remove Sphinx markup, and replace Python's constants by YAML's."""
    text = re.sub(r"\s*\.\. \w+::.*", "", text, flags=re.DOTALL)  # notes
    for word, written in (("None", "null"), ("True", "true"), ("False", "false")):
        text = text.replace(f"``{word}``", written)
    text = re.sub(r":\w+:`(?:~[\w.]*?)?(\w+)`", r"\1", text)
    text = re.sub(r":\w+:`([^`]*)`", r"\1", text)
    text = re.sub(r"`([^`]*?)\s*<https?:[^`]*>`_*", r"\1", text)
    return re.sub(r"``([^`]*)``", r"\1", text)


def _wrap(text: str, indent: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(" ".join(text.split()), _terminal_width(), initial_indent=space, subsequent_indent=space)


def _terminal_width() -> int:
    return min(shutil.get_terminal_size().columns, WIDEST)
