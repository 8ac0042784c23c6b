"""Functions and methods of users are checked for the arguments that they are called with, not for what they do."""

import functools
from abc import ABC, abstractmethod
from typing import Any

import pytest

from dop_lightning.foundation.signatures import create_part, require_arguments, require_part, require_result

HERE = r" in .*test_signatures\.py, line \d+$"


class Part(ABC):
    """Base class of users."""

    @abstractmethod
    def run(self, clean: int, running: int = 0) -> int: ...

    def describe(self, *, loudly: bool) -> None:
        print(loudly)

    @property
    def name(self) -> str:
        return "part"


Part.__module__ = "dop_lightning.parts"  # only classes of the package and of Lightning define signatures


class Right(Part):
    def run(self, x: int, y: int = 0, *more: int) -> int:
        return x + y

    def describe(self, *, loudly: bool, how: str = "") -> None: ...

    def run_twice(self) -> None: ...


class Decorated(Part):
    @functools.lru_cache  # noqa: B019 — any decorator
    def run(self, *arguments: int) -> int:
        return 0


class FewArguments(Part):
    def run(self, x: int) -> int:
        return x


class ManyArguments(Part):
    def run(self, x: int, y: int, z: int) -> int:
        return x


class OtherKeyword(Right):
    def describe(self, *, softly: bool) -> None: ...


class MethodForProperty(Right):
    def name(self) -> str:  # type: ignore[override]
        return "x"


class PropertyForMethod(Right):
    @property
    def run(self) -> int:  # type: ignore[override]
        return 0


class DecoratedWrongly(Right):
    @staticmethod
    def _all(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @_all
    def run(self) -> int:
        return 0


@pytest.mark.parametrize("cls", [Right, Decorated])
def test_correct_methods_pass(cls: type[Part]) -> None:
    require_part("part", cls(), Part)


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (FewArguments, r"FewArguments\.run must take \(self, clean, running=0\), got run\(self, x\)" + HERE),
        (ManyArguments, r"ManyArguments\.run must take \(self, clean, running=0\), got run\(self, x, y, z\)" + HERE),
        (
            OtherKeyword,
            r"OtherKeyword\.describe must take \(self, \*, loudly\), got describe\(self, \*, softly\)" + HERE,
        ),
        (MethodForProperty, r"MethodForProperty\.name must be a property, add @property" + HERE),
        (PropertyForMethod, r"PropertyForMethod\.run must be a method, got a property" + HERE),
        (DecoratedWrongly, r"DecoratedWrongly\.run must take \(self, clean, running=0\), got run\(self\)" + HERE),
    ],
)
def test_method_with_other_arguments_is_reported(cls: type[Part], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        require_part("part", cls(), Part)


def test_a_part_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^noise must be a Part, got 'salt'$"):
        require_part("noise", "salt", Part)


class Made:
    def __init__(self, problems: int, rank: int = 1) -> None: ...


class MadeOfNothing:
    def __init__(self) -> None: ...


def _called(instantiator: object, cls: type, *args: object, **kwargs: object) -> object:
    return cls(*args, **kwargs)


_called.__module__ = "jsonargparse._instantiation"


@pytest.mark.parametrize(
    "factory",
    [
        Made,
        functools.partial(Made, rank=3),
        lambda problems: 0,
        lambda *args: 0,
        functools.partial(_called, object(), Made, rank=3),
        dict.fromkeys,  # has no signature, or one argument
        print,
    ],
)
def test_correct_factory_passes(factory: Any) -> None:
    require_arguments("signal", factory, ["problems"], "a Signal")


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        (lambda: 0, r"^signal must be a function of \(problems\) that returns a Signal, got <lambda>\(\)" + HERE),
        (
            MadeOfNothing,
            r"^signal: .*MadeOfNothing\.__init__ must take \(self, problems\), got __init__\(self\)" + HERE,
        ),
        (functools.partial(_called, object(), MadeOfNothing), r"^signal: .*MadeOfNothing\.__init__ must take"),
        (functools.partial(Made, problems=1), r"^signal: .*Made\.__init__ must take"),
        (3, r"^signal must be a function of \(problems\), got 3$"),
    ],
)
def test_wrong_factory_is_reported(factory: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        require_arguments("signal", factory, ["problems"], "a Signal")


def test_factory_must_return_its_kind_of_part() -> None:
    assert isinstance(create_part(lambda n: Right(), Part, 1), Right)
    with pytest.raises(ValueError, match=r"make must return a Part, got an int" + HERE):
        create_part(make, Part, 1)
    with pytest.raises(ValueError, match=r"FewArguments\.run must take"):
        create_part(lambda n: FewArguments(), Part, 1)


def make(n: int) -> int:
    return n


def test_errors_raised_by_a_factory_are_unchanged() -> None:
    with pytest.raises(TypeError, match="can only concatenate"):
        create_part(lambda n: "a" + n, Part, 1)


def test_a_result_is_returned() -> None:
    assert require_result(3, int, make) == 3
    with pytest.raises(ValueError, match=r"make must return a str, got None" + HERE):
        require_result(None, str, make)
