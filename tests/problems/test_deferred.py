"""Problems whose tensors are read again at each use."""

import copy
import gc
import pickle
import weakref
from dataclasses import replace

import pytest
import torch

from dop_lightning.images.tiles import cut
from dop_lightning.problems.deferred import TENSORS, DeferredProblem, Tensors, defer
from dop_lightning.problems.problem import Problem, ProblemBatch, form_batches, rename


def make(name: str = "image", masked: bool = True) -> Problem:
    draws = torch.Generator().manual_seed(3)
    truth = torch.rand(3, 24, 20, generator=draws)
    mask = torch.rand(truth.shape, generator=draws) < 0.9 if masked else None
    observation = truth.clone()
    observation[:, 5] = 1.0
    known = {"undamaged": truth > 0.95, "seed": 7, "data_range": 1.0, "attributes": {"image": "a"}}
    return Problem(name, observation, truth, observation - truth, mask, **known)


class Readings:
    """Makes the same problem again, and counts how often."""

    def __init__(self) -> None:
        self.count = 0
        self.problem = make

    def __call__(self) -> tuple[Problem, object]:
        self.count += 1
        return self.problem(), None


@pytest.fixture
def readings() -> Readings:
    return Readings()


@pytest.fixture
def deferred(readings: Readings) -> Problem:
    return defer(make(), readings)[0]


def test_deferred_problem_has_the_attributes_of_the_problem(deferred: Problem) -> None:
    problem = make()
    for name in TENSORS:
        assert torch.equal(getattr(deferred, name), getattr(problem, name))
    assert deferred.digest == problem.digest
    assert deferred.batch_key == problem.batch_key
    assert (deferred.shape, deferred.entries, deferred.dtype) == (problem.shape, problem.entries, problem.dtype)
    assert (deferred.name, deferred.seed, deferred.attributes) == ("image", 7, {"image": "a"})


def test_known_attributes_are_not_read(deferred: Problem, readings: Readings) -> None:
    _ = deferred.shape, deferred.entries, deferred.dtype, deferred.has_mask, deferred.digest, deferred.batch_key
    assert rename(deferred, "other").name == "other"
    assert rename(deferred, "image") is deferred
    form_batches([deferred, rename(deferred, "other")], 2)
    assert readings.count == 0


def test_tensors_stay_in_memory_as_long_as_something_holds_them(readings: Readings) -> None:
    deferred, held = defer(make(), readings)
    assert deferred.truth is deferred.truth
    assert readings.count == 0
    gone = weakref.ref(held)
    del held
    gc.collect()
    assert gone() is None
    _ = deferred.observation
    assert readings.count == 1


def test_batch_holds_tensors_after_first_use(deferred: Problem, readings: Readings) -> None:
    batch = ProblemBatch([deferred])
    assert batch.names == ["image"]
    assert (batch.dtype, batch.device.type, batch.entries) == (torch.float32, "cpu", 1440)
    assert readings.count == 0
    assert torch.equal(batch.observation[0], make().observation)
    assert batch.mask is not None
    assert torch.equal(batch.mask[0], make().mask)
    assert readings.count == 1
    _ = deferred.truth, deferred.observation, deferred.mask
    assert readings.count == 1
    working = batch.to("cpu")
    assert working is not batch
    del batch
    gc.collect()
    _ = deferred.truth
    assert readings.count == 2


def test_tiles_share_one_reading_of_their_image(deferred: Problem, readings: Readings) -> None:
    mosaic, expected = cut(deferred, 12, 4), cut(make(), 12, 4)
    assert mosaic is not None
    assert expected is not None
    readings.count = 0
    batches = [ProblemBatch([tile]) for tile in mosaic.tiles.values()]
    assert readings.count == 0
    for batch, tile in zip(batches, expected.tiles.values(), strict=True):
        assert isinstance(batch[0], DeferredProblem)
        assert torch.equal(batch.observation[0], tile.observation)
        assert torch.equal(batch[0].truth, tile.truth)
        assert (batch[0].seed, batch[0].folder, batch[0].name) == (tile.seed, tile.folder, tile.name)
        assert batch[0].batch_key == tile.batch_key
        assert batch[0].digest == tile.digest
        assert batch[0].is_tile
    assert readings.count == 1


def test_change_of_a_file_is_detected(deferred: Problem, readings: Readings) -> None:
    readings.problem = lambda: replace(make(), truth=torch.zeros(3, 24, 20))
    with pytest.raises(ValueError, match="the file has changed since the run started; restore the original file"):
        _ = deferred.observation


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda problem: pickle.loads(pickle.dumps(problem))])
def test_copies_are_ordinary_problems(deferred: Problem, copied) -> None:
    for problem in (copied(deferred), copied(ProblemBatch([deferred]))[0], replace(deferred, alpha=2.0)):
        assert type(problem) is Problem
        assert torch.equal(problem.observation, make().observation)
        assert problem.name == "image"


def test_mask_is_not_read_if_there_is_none() -> None:
    readings = Readings()
    deferred, _ = defer(make(masked=False), readings)
    assert deferred.mask is None
    assert not deferred.has_mask


def test_tensors_keep_their_source_alive() -> None:
    owner = Tensors(make())
    gone = weakref.ref(owner)
    _, held = defer(make(), Readings(), owner)
    del owner
    assert gone() is not None
    del held
    assert gone() is None
