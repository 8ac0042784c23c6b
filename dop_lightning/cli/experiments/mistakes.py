"""Find the first setting of a run that does not exist, or whose value is not accepted.

jsonargparse detects errors, but its messages are long. This module checks the config files and options again with the
same parser, to find the wrong word, its location, and a suggestion.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from dop_lightning.cli.experiments.class_names import ClassNameError, find_class
from dop_lightning.cli.experiments.schema import (
    CLASS_KEYS,
    Setting,
    children,
    is_sequence,
    settings_of,
    settings_of_class,
)
from dop_lightning.cli.experiments.sources import Source, plain_key
from dop_lightning.foundation.nearest import did_you_mean, nearest

MAX_SHOWN = 80
"""Maximum number of characters of a value in a message."""


class MistakeError(ValueError):
    """A setting is invalid. The message contains its name and location, and a suggestion."""


class Settings:
    """Settings of a parser, with the selected classes.

    Args:
        parser: parser of all settings.

    Attributes:
        classes: currently selected class of each setting that takes the arguments of a class, by key.
    """

    def __init__(self, parser: ArgumentParser) -> None:
        self.known = settings_of(parser)
        options = [option for action in parser._actions for option in action.option_strings if option[:2] == "--"]
        self.sections = list(dict.fromkeys(option[2:].split(".")[0] for option in options))
        self.classes: dict[str, Any] = {}
        self._taking: dict[str, Setting] = {}  # settings with a class, by plain key
        self._source = Source("", {}, False)
        self._later: Sequence[Source] = ()

    def check(self, sources: Sequence[Source]) -> None:
        """Apply and check sources in order.

        Raises:
            MistakeError: a setting is invalid.
        """
        for place, source in enumerate(sources):
            self._source, self._later = source, sources[place + 1 :]
            self._check_section(self.known, "", "", source.tree, None)

    def class_at(self, setting: Setting, key: str) -> Any:
        """Return the class whose arguments a setting takes: the selected one, or the default; ``None`` if unknown."""
        plain = plain_key(key)
        if plain in self.classes:
            return self.classes[plain]
        if setting.default_class:
            return find_class(setting.default_class, setting.bases, setting.factory_arguments is not None)
        own = setting.bases[0] if len(setting.bases) == 1 else None
        return None if inspect.isabstract(own) else own

    # ------------------------------------------------------------------------------------------------------ sections

    def _check_section(
        self, known: Mapping[str, Setting], prefix: str, key: str, values: Mapping[Any, Any], owner: Any
    ) -> None:
        """Check the settings of a section of the parser, or the arguments of a class."""
        for word, value in values.items():
            name = str(word).removesuffix("+")
            full, shown = f"{prefix}{name}", f"{key}.{name}" if key else name
            if full in known:
                self._check_setting(known[full], shown, value)
            elif any(other.startswith(f"{full}.") for other in known):
                if isinstance(value, Mapping):
                    self._check_section(known, f"{full}.", shown, value, owner)
                elif not _is_file(value):
                    raise self._mistake(
                        f"{self._format_key(shown)} must be a mapping of settings, got {_abbreviate(value)}"
                    )
            elif prefix or owner or name not in self.sections:
                self._refuse_unknown(known, prefix, key, name, owner)

    def _refuse_unknown(self, known: Mapping[str, Setting], prefix: str, key: str, name: str, owner: Any) -> None:
        self._refuse_overlay(key, name)
        start = f"{key}." if key else ""
        close = nearest(name, children(known, prefix) if prefix or owner else self.sections)
        meant = start + close + self._rest_of_option(start + name) if close else self._find_elsewhere(name)
        of = f" of {_class_name(owner)}" if owner else ""
        section = re.sub(r"\[\d+\]", "", plain_key(key))
        hint = f" (dop fit --{section}.help{of.removeprefix(' of')} lists them)" if key else ""
        if meant is not None:
            hint = f"; did you mean {self._format_key(meant)}?"
        raise self._mistake(
            f"there is no setting {self._format_key(start + name + self._rest_of_option(start + name))}{of}{hint}"
        )

    def _rest_of_option(self, key: str) -> str:
        """Return the rest of an option, as typed, after ``key``."""
        typed = self._source.name.removeprefix("--").removesuffix("+")
        return typed.removeprefix(key) if not self._source.is_file and typed.startswith(f"{key}.") else ""

    def _find_elsewhere(self, name: str) -> str | None:
        """Return the key of a setting with exactly this name in another section or in a selected class."""
        keys = list(self.known)
        for key, setting in self.known.items():
            if setting.bases and setting.element is None:
                cls = self.class_at(setting, key)
                keys += [f"{key}.init_args.{argument}" for argument in _arguments_of(cls, setting)] if cls else []
        return next((key for key in keys if key.rpartition(".")[2] == name), None)

    # ------------------------------------------------------------------------------------------------------ settings

    def _check_setting(self, setting: Setting, key: str, value: Any) -> None:
        """Check one value."""
        if isinstance(value, str) and "${" in value:
            return
        element = setting.element
        if is_sequence(value) and element is not None and element.bases:
            for place, one in enumerate(value):
                self._check_setting(element, f"{key}[{place}]", one)
                if f"{plain_key(key)}[{place}]" in self.classes:  # options change the last one
                    self.classes[plain_key(key)] = self.classes[f"{plain_key(key)}[{place}]"]
        elif isinstance(value, Mapping) and setting.bases:
            self._check_class(setting, key, value)
        elif isinstance(value, str) and setting.bases and not setting.takes_text and not _is_file(value):
            self._check_class_name(setting, key, value)
        elif not setting.accepts(value):
            raise self._refusal(setting, key, value)

    def _check_class_name(self, setting: Setting, key: str, value: str) -> None:
        """Check the name of a class, unless the value is accepted otherwise."""
        others = [kind for kind in setting.alternatives if not Setting(key, kind, None, "").bases]
        if any(Setting(key, kind, None, "").accepts(value) for kind in others):
            return
        if nearest(value, setting.choices):
            raise self._refusal(setting, key, value)
        self._select_class(setting, key, value)

    def _select_class(self, setting: Setting, key: str, name: str) -> None:
        try:
            self.classes[plain_key(key)] = find_class(name, setting.bases, setting.factory_arguments is not None)
        except ClassNameError as error:
            raise self._mistake(f"{self._format_key(key)}: {error}") from error

    def _check_class(self, setting: Setting, key: str, value: Mapping[Any, Any]) -> None:
        """Check a class with its arguments."""
        self._taking[plain_key(key)] = setting
        self._check_class_keys(setting, key, value)
        if isinstance(value.get("class_path"), str) and "${" not in value["class_path"]:
            self._select_class(setting, key, value["class_path"])
        cls = self.class_at(setting, key)
        if cls is None:
            self._refuse_overlay(key, "")
            raise self._mistake(self._explain_missing_class(key, value))
        arguments = _arguments_of(cls, setting)
        if not any(word in value for word in CLASS_KEYS):
            self._check_arguments(cls, setting, key, value)
            return
        for word in value:
            if word in CLASS_KEYS:
                continue
            if word in arguments:
                raise self._mistake(
                    f"{self._format_key(f'{key}.{word}')} must be below {self._format_key(f'{key}.init_args')}"
                )
            self._refuse_overlay(key, str(word))
            hint = did_you_mean(str(word), [*CLASS_KEYS, *arguments], quote=False)
            raise self._mistake(
                f"there is no {self._format_key(f'{key}.{word}')} beside class_path and init_args{hint}"
            )
        if isinstance(value.get("init_args"), Mapping):
            self._check_arguments(cls, setting, f"{key}.init_args", value["init_args"])

    def _check_class_keys(self, setting: Setting, key: str, value: Mapping[Any, Any]) -> None:
        """Raise an error for misspelled keys such as ``class_pth``, unless they are arguments of the class."""
        cls = self.class_at(setting, key)
        for word in map(str, value):
            if (
                word not in CLASS_KEYS
                and nearest(word, CLASS_KEYS)
                and not (cls and word in _arguments_of(cls, setting))
            ):
                hint = did_you_mean(word, CLASS_KEYS, quote=False)
                raise self._mistake(
                    f"there is no {self._format_key(f'{key}.{word}')} beside class_path and init_args{hint}"
                )

    def _check_arguments(self, cls: Any, setting: Setting, key: str, values: Mapping[Any, Any]) -> None:
        if set(values) == {"dict_kwargs"}:
            return
        self._check_section(_arguments_of(cls, setting), "", key, values, cls)

    # ------------------------------------------------------------------------------------------------------ messages

    def _refuse_overlay(self, key: str, argument: str) -> None:
        """Raise an error for settings that change a class before the config that selects it.

        Args:
            key: key of the setting that takes the class.
            argument: argument that the class selected later must have; empty accepts any class.
        """
        plain = plain_key(key)
        for later in self._later:
            name = dict(later.classes).get(plain)
            if name is None or plain not in self._taking or not _accepts(name, self._taking[plain], argument):
                continue
            first, second = self._source.name, later.name
            raise MistakeError(
                f"{first} changes the arguments of {self._format_key(plain)}, whose class is chosen later, by "
                f"{second}; pass {first} after {second}"
            )

    def _explain_missing_class(self, key: str, value: Mapping[Any, Any]) -> str:
        what = "init_args" if "init_args" in value else ", ".join(map(str, value))
        text = f"{self._format_key(plain_key(key))} has {what} but no class_path"
        if self._source.is_file:
            file = self._source.name
            return f"{text}; pass this file after the config that it changes: --config BASE.yaml --config {file}"
        return f"{text}; pass it after a config, or after --{plain_key(key)} NAME"

    def _refusal(self, setting: Setting, key: str, value: Any) -> MistakeError:
        got = f"got {_abbreviate(value)}{did_you_mean(value, setting.choices)}"
        return self._mistake(f"{self._format_key(key)} must be {setting.describe()}, {got}")

    def _mistake(self, text: str) -> MistakeError:
        return MistakeError(f"{self._source.begin()}{text}")

    def _format_key(self, key: str) -> str:
        return self._source.show(key)


def _arguments_of(cls: Any, setting: Setting) -> Mapping[str, Setting]:
    return settings_of_class(cls, setting.factory_arguments or 0)


def _accepts(name: str, setting: Setting, argument: str) -> bool:
    """Return whether a setting accepts a class of this name, and the class has the argument, if not empty."""
    try:
        cls = find_class(name, setting.bases, setting.factory_arguments is not None)
    except ClassNameError:
        return False
    return not argument or argument in _arguments_of(cls, setting)


def _class_name(cls: Any) -> str:
    return getattr(cls, "__name__", str(cls))


def _is_file(value: object) -> bool:
    return isinstance(value, str) and Path(value).is_file()


def _abbreviate(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
