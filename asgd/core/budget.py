"""When a run is over."""

from __future__ import annotations

from dataclasses import dataclass

from asgd.errors import ConfigError


@dataclass(frozen=True)
class Budget:
    """When a run is over; 0 means no limit, at least one limit must be set.

    versions: updates; samples: samples of all gradients that arrived, used or not; gradients: arrivals; time_s:
    seconds of the run's clock: what arrives after them comes too late to be used.
    """

    versions: int = 0
    samples: int = 0
    gradients: int = 0
    time_s: float = 0.0

    def __post_init__(self) -> None:
        limits = (self.versions, self.samples, self.gradients, self.time_s)
        if min(limits) < 0 or max(limits) == 0:
            raise ConfigError("budget: one of versions, samples, gradients, time_s must be above 0, and none below")

    def is_used_up(self, versions: int, samples: int, gradients: int, time_s: float) -> bool:
        """Whether one of the limits is reached: `fraction` is at least 1 (asked after every arrival)."""
        return (
            0 < self.versions <= versions
            or 0 < self.samples <= samples
            or 0 < self.gradients <= gradients
            or 0.0 < self.time_s <= time_s
        )

    def is_too_late(self, time_s: float) -> bool:
        """Whether what arrives now arrives after the end of a run by its clock."""
        return 0.0 < self.time_s < time_s

    def fraction(self, versions: int, samples: int, gradients: int, time_s: float) -> tuple[float, str]:
        """How much is used, from 0 to 1 (above when overshot), of the limit that is nearest, and its name."""
        used = {
            "versions": versions / self.versions if self.versions else 0.0,
            "samples": samples / self.samples if self.samples else 0.0,
            "gradients": gradients / self.gradients if self.gradients else 0.0,
            "time_s": time_s / self.time_s if self.time_s else 0.0,
        }
        name = max(used, key=used.__getitem__)
        return used[name], name
