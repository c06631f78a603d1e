"""Classifying many photos: on all cores, and by torch in batches."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np

from potstill.deploy.predictor import Decides, LabelsPrediction, Photo, Prediction, prediction_of
from potstill.errors import DataError
from potstill.processes.cores import available_cores
from potstill.processes.pools import in_order

BATCH = 32

PROCESSES_FROM = 2_000
"""From this many photos on, processes decode instead of threads, where there are more than two cores."""

_CHUNK = 8
"""Photos handed to a worker together."""

Name = TypeVar("Name")
Named = tuple[Name, Photo | DataError]
"""A photo, or what is wrong with it, with whatever its caller knows it by."""


class Model(Decides, Protocol):
    """What classifies in batches: a `Predictor`, or an exported file."""

    @property
    def works_in_processes(self) -> bool:
        """Whether `worker` gives something that other processes can run, too."""
        ...

    def worker(self, *, processes: bool) -> Callable[[Photo], np.ndarray]:
        """What is done with each photo alone, by threads or processes. It raises DataError for what is no photo."""
        ...

    def from_workers(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """(B, C) probabilities from what `worker` made of B photos."""
        ...


def probabilities_of_each(
    model: Model, photos: Iterable[Named[Name]], *, count: int = 0
) -> Iterator[tuple[Name, np.ndarray | DataError]]:
    """The probabilities (C,) of each photo in turn, or what is wrong with it.

    Args:
        photos: read as they are needed, so that they may be more than fit into memory.
        count: how many there are, as far as it is known; processes decode where they are many.
    """
    processes = count >= PROCESSES_FROM and available_cores() > 2 and model.works_in_processes
    work = functools.partial(_work, model.worker(processes=processes))
    worked = in_order(work, photos, chunk=_CHUNK, processes=processes)
    while part := list(itertools.islice(worked, BATCH)):
        usable = [found for _, found in part if isinstance(found, np.ndarray)]
        rows = iter(model.from_workers(usable) if usable else ())
        for name, found in part:
            yield name, found if isinstance(found, DataError) else next(rows)


def predict_each(
    model: Model, photos: Iterable[Named[Name]], *, count: int = 0
) -> Iterator[tuple[Name, Prediction | LabelsPrediction | DataError]]:
    """The prediction for each photo in turn, or what is wrong with it. Arguments as of `probabilities_of_each`."""
    for name, found in probabilities_of_each(model, photos, count=count):
        if isinstance(found, DataError):
            yield name, found
        else:
            yield name, prediction_of(model, found)


def predict_all(model: Model, photos: Iterable[Photo]) -> list[Prediction | LabelsPrediction]:
    """The predictions for all photos. Raises DataError for the first one that is not usable."""
    found = []
    for _, prediction in predict_each(model, ((None, photo) for photo in photos)):
        if isinstance(prediction, DataError):
            raise prediction
        found.append(prediction)
    return found


def _work(
    worker: Callable[[Photo], np.ndarray], photos: Sequence[Named[Name]]
) -> list[tuple[Name, np.ndarray | DataError]]:
    """What the worker makes of each photo, or what is wrong with it."""
    return [(name, _worked(worker, photo)) for name, photo in photos]


def _worked(worker: Callable[[Photo], np.ndarray], photo: Photo | DataError) -> np.ndarray | DataError:
    if isinstance(photo, DataError):
        return photo
    try:
        return worker(photo)
    except DataError as error:
        return error
