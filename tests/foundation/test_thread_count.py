"""The number of threads of one thread."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dop_lightning.foundation import thread_count
from dop_lightning.foundation.thread_count import set_threads_here, threads_here


def of_new_threads() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.fixture(autouse=True)
def _three() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["of the libraries", "of torch"])
def _ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "of torch":
        monkeypatch.setattr(thread_count, "_thread_setters", lambda: ())


@pytest.mark.usefixtures("_ways")
def test_other_threads_keep_their_number() -> None:
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 3
        with threads_here(1):
            assert torch.get_num_threads() == 1
            assert other.submit(torch.get_num_threads).result() == 3
            assert of_new_threads() == 3
        assert torch.get_num_threads() == 3
        other.submit(set_threads_here, 2).result()
        assert other.submit(torch.get_num_threads).result() == 2
        assert of_new_threads() == torch.get_num_threads() == 3


@pytest.mark.usefixtures("_ways")
def test_number_is_restored_after_an_error() -> None:
    with pytest.raises(KeyError), threads_here(2):
        raise KeyError
    assert torch.get_num_threads() == of_new_threads() == 3


def test_matrix_products_use_the_number_of_threads() -> None:
    """MKL has a separate number of threads."""
    if not torch.backends.mkl.is_available():
        pytest.skip("PyTorch without MKL")
    set_threads_here(1)
    assert "mkl_get_max_threads() : 1\n" in torch.__config__.parallel_info()
    set_threads_here(3)
    assert "mkl_get_max_threads() : 3\n" in torch.__config__.parallel_info()
