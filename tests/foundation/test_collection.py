"""Imports without garbage collections."""

import gc

import pytest

from dop_lightning.foundation.collection import import_frozen


def test_collections_continue_after_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(gc.isenabled()))
    monkeypatch.delitem(__import__("sys").modules, "this", raising=False)
    assert import_frozen("this").__name__ == "this"
    assert calls == [False]
    assert gc.isenabled()
    assert import_frozen("this").__name__ == "this"
    assert len(calls) == 1  # it was already imported


def test_collections_continue_after_an_error() -> None:
    with pytest.raises(ModuleNotFoundError):
        import_frozen("dop_lightning.missing")
    assert gc.isenabled()
