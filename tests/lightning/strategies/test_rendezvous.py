"""The first process decides, the others are told."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from lightning_fabric.plugins.environments.lightning import find_free_network_port

from dop_lightning.lightning.strategies import rendezvous
from dop_lightning.lightning.strategies.launched import CHILD
from dop_lightning.lightning.strategies.rendezvous import Rendezvous


def environment(rank: int, ranks: int, port: int) -> Any:
    return SimpleNamespace(main_address="127.0.0.1", main_port=port, global_rank=lambda: rank, world_size=lambda: ranks)


@pytest.fixture
def port() -> int:
    return find_free_network_port()


def test_all_get_what_the_first_decides(port: int) -> None:
    def process(rank: int) -> list[Any]:
        here = Rendezvous(environment(rank, 3, port))
        told = [here.share("plan", lambda: {"of": rank}), here.share("plan", lambda: [rank, "again"])]
        here.close()
        return [*told, here]  # the store of the first lives as long as it does

    with ThreadPoolExecutor(3) as threads:
        told = list(threads.map(process, range(3)))
    assert [some[:2] for some in told] == [[{"of": 0}, [0, "again"]]] * 3


def test_the_first_waits_for_those_who_come_late(port: int) -> None:
    first, order = Rendezvous(environment(0, 2, port)), []
    first.share("plan", lambda: "it")

    def late() -> None:
        assert Rendezvous(environment(1, 2, port)).share("plan", lambda: None) == "it"
        order.append("told")

    timer = threading.Timer(0.2, late)
    timer.start()
    first.close()
    order.append("closed")
    timer.join()
    assert order == ["told", "closed"] or order == ["closed", "told"]
    assert first._store.add(first._last, 0) == 1


def test_a_first_process_that_does_not_decide_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Rendezvous(environment(0, 2, port))
    monkeypatch.setattr(rendezvous, "PATIENCE", 0.2)
    other = Rendezvous(environment(1, 2, port))
    with pytest.raises(ValueError, match=rf"rank 1: the first process at 127.0.0.1:{port} has not told the plan"):
        other.share("plan", lambda: None)
    del first


def test_a_first_process_that_has_ended_is_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHILD, "1234567890")  # nobody's parent
    monkeypatch.setattr(rendezvous, "ATTEMPT", 0.1)
    with pytest.raises(ValueError, match=r"rank 1: cannot reach the first process at .*, which has ended"):
        Rendezvous(environment(1, 2, port))


def test_an_address_where_nobody_is_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "PATIENCE", 0.2)
    with pytest.raises(ValueError, match=f"rank 1: cannot reach the first process at 127.0.0.1:{port}"):
        Rendezvous(environment(1, 2, port))
