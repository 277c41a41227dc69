"""What outstanding jobs were given: one copy per version, shared by its jobs, in memory that is reused."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor


class Reads:
    """Keeps the vector that each outstanding job was given until the job ends.

    Jobs that were given at the same `version` share a copy; it is freed, for the next version, when the last of them
    ends. So there are at most as many copies as jobs outstanding at once: n times the jobs per worker. They are part of
    a checkpoint only if the jobs in flight shall outlive the server (`recovery.mode = "exact"`).

    Example:
        >>> reads, params = Reads(), torch.tensor([1.0])
        >>> reads.given(0, 5, params)
        >>> reads.given(1, 5, params)
        >>> _ = params.fill_(2.0)
        >>> reads.ended(0)
        >>> reads.of(0), reads.of(1)
        (None, tensor([1.]))
    """

    def __init__(self) -> None:
        self._version_of: dict[int, Hashable] = {}
        self._kept: dict[Hashable, Tensor] = {}
        self._num_jobs: dict[Hashable, int] = {}
        self._free: list[Tensor] = []

    def given(self, job: int, version: Hashable, vector: Tensor) -> None:
        """A job was given this vector; the same version means the same vector."""
        self._version_of[job] = version
        if version not in self._kept:
            copy = self._free.pop() if self._free else torch.empty_like(vector)
            copy.copy_(vector)
            self._kept[version] = copy
        self._num_jobs[version] = self._num_jobs.get(version, 0) + 1

    def of(self, job: int) -> Tensor | None:
        """What an outstanding job was given; None for any other."""
        version = self._version_of.get(job)
        return None if version is None else self._kept[version]

    def ended(self, job: int) -> None:
        """A job has ended, in whatever way."""
        version = self._version_of.pop(job, None)
        if version is None:  # it was given before the server was started again
            return
        self._num_jobs[version] -= 1
        if not self._num_jobs[version]:
            del self._num_jobs[version]
            self._free.append(self._kept.pop(version))

    def kept(self) -> tuple[list[tuple[int, int]], list[Tensor]]:
        """All jobs, each with the place of its vector in the list beside; the vectors are not copied."""
        places = {version: place for place, version in enumerate(self._kept)}
        jobs = [(job, places[version]) for job, version in self._version_of.items()]
        return jobs, list(self._kept.values())

    def load(self, jobs: list[tuple[int, int]], vectors: list[Tensor]) -> None:
        """Take over what `kept` gave, in place of all that is here."""
        for job in list(self._version_of):
            self.ended(job)
        for job, place in jobs:
            self.given(job, ("saved", place), vectors[place])
