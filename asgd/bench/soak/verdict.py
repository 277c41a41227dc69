"""Whether what the processes use is flat: a slope with its interval, and counts at the end against the beginning.

What is judged is a process that lives through the last three quarters of the training. Memory: the mean of each of 20
equal parts of that time, a straight line through them by least squares, and the 95% interval of its slope (Student's t,
18 degrees of freedom); means of parts, because samples that follow each other are not independent. It is flat when the
whole interval lies below the bound. Files and threads: the median of the last eighth of the training against that of
the eighth after its first quarter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from asgd.bench.soak.course import Sample
from asgd.bench.soak.sampling import Reading

PARTS = 20
ENDING_S = 2.0  # the trace is written this often at least
FILES_BAND = 1
THREADS_BAND = 0


@dataclass(frozen=True)
class Flat:
    """What one process did in the last three quarters of the training: MB, MB/h with its 95% interval, counts."""

    role: str
    pid: int
    own_mb: tuple[float, float]  # means of the first and the last part
    pss_mb: tuple[float, float]
    slope_mb_per_h: float
    low: float
    high: float
    files: tuple[float, float]
    threads: tuple[float, float]
    cpu_s: float

    def problems(self, bound_mb_per_h: float) -> list[str]:
        """What isn't flat, as sentences."""
        who, found = f"{self.role} ({self.pid})", []
        if not self.high < bound_mb_per_h:
            found.append(
                f"{who}: memory changes by {self.slope_mb_per_h:+.2f} MB/h (95%: {self.low:+.2f} to {self.high:+.2f}), "
                f"and less than {bound_mb_per_h:g} is flat"
            )
        for name, (before, after), band in (
            ("open files", self.files, FILES_BAND),
            ("threads", self.threads, THREADS_BAND),
        ):
            if abs(after - before) > band:
                found.append(f"{who}: {before:g} {name} after the start, {after:g} at the end")
        return found


def training(samples: Sequence[Sample]) -> list[Sample]:
    """The samples from the first update until shortly before the last, when the workers are sent home."""
    last = samples[-1].version if samples else 0
    ended_s = next((sample.time_s for sample in samples if sample.version == last), 0.0)
    return [sample for sample in samples if sample.version > 0 and sample.time_s < ended_s - ENDING_S]


def slope(times_s: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """Change per hour and its 95% interval, from the means of `PARTS` parts of equal length; see the top.

    Example:
        >>> change, low, high = slope(range(3600), [i / 3600 + (i % 7) for i in range(3600)])
        >>> low < 1.0 < high and abs(change - 1.0) < 0.05
        True
    """
    import numpy as np
    from scipy.stats import linregress, t

    at_h, value = np.asarray(times_s, float) / 3600, np.asarray(values, float)
    part = np.minimum(((at_h - at_h[0]) / (at_h[-1] - at_h[0]) * PARTS).astype(int), PARTS - 1)
    parts = [part == number for number in range(PARTS) if (part == number).any()]
    means = [round(float(value[inside].mean()), 6) for inside in parts]  # to the byte
    if len(set(means)) == 1:  # of which the library makes an interval of no numbers
        return 0.0, 0.0, 0.0
    fit = linregress([at_h[inside].mean() for inside in parts], means)
    reach = float(t.ppf(0.975, len(parts) - 2) * fit.stderr)
    return float(fit.slope), float(fit.slope) - reach, float(fit.slope) + reach


def long_lived(samples: Sequence[Sample]) -> list[tuple[Reading, list[tuple[Sample, Reading]]]]:
    """The processes that live through the last three quarters of the training, each with its samples in that time."""
    inside = training(samples)
    if not inside:
        return []
    begin_s, end_s = inside[0].time_s, inside[-1].time_s
    late = [sample for sample in inside if sample.time_s >= begin_s + (end_s - begin_s) / 4]
    series: dict[tuple[int, int], list[tuple[Sample, Reading]]] = {}
    for sample in late:
        for reading in sample.processes:
            series.setdefault((reading.pid, reading.born), []).append((sample, reading))
    whole = [each for each in series.values() if each[0][0] is late[0] and each[-1][0] is late[-1]]
    return [(each[-1][1], each) for each in whole if len(each) >= PARTS]


def judge(samples: Sequence[Sample]) -> list[Flat]:
    """Every process that lives long enough to be judged.

    A server has one open file for each worker that joined: these are taken off.
    """
    found = []
    for last, series in long_lived(samples):
        times_s = [sample.time_s for sample, _ in series]
        begin_s, length_s = times_s[0], times_s[-1] - times_s[0]  # three quarters of the training
        first = [pair for pair in series if pair[0].time_s <= begin_s + length_s / 6]
        end = [pair for pair in series if pair[0].time_s >= begin_s + length_s * 5 / 6]
        guests = last.role == "server"
        change, low, high = slope(times_s, [reading.own_mb for _, reading in series])
        found.append(
            Flat(
                role=last.role,
                pid=last.pid,
                own_mb=(_mean(first, "own_mb"), _mean(end, "own_mb")),
                pss_mb=(_mean(first, "pss_mb"), _mean(end, "pss_mb")),
                slope_mb_per_h=change,
                low=low,
                high=high,
                files=(_files(first, guests), _files(end, guests)),
                threads=(
                    float(median(reading.threads for _, reading in first)),
                    float(median(reading.threads for _, reading in end)),
                ),
                cpu_s=round(series[-1][1].cpu_s - series[0][1].cpu_s, 2),
            )
        )
    return found


def _mean(pairs: Sequence[tuple[Sample, Reading]], name: str) -> float:
    return round(fmean(getattr(reading, name) for _, reading in pairs), 3)


def _files(pairs: Sequence[tuple[Sample, Reading]], guests: bool) -> float:
    return float(median(reading.files - (sample.guests if guests else 0) for sample, reading in pairs))


@dataclass(frozen=True)
class Pace:
    """What the run did in a quarter of its training: its rate, and the server's CPU time for an update."""

    updates_per_s: float
    server_us_per_update: float


def pace(samples: Sequence[Sample]) -> list[Pace]:
    """Of each quarter of the training: does an update cost more when the run has become long?"""
    inside = [sample for sample in training(samples) if any(p.role == "server" for p in sample.processes)]
    quarters = []
    for number in range(4):
        begin, end = (inside[round(place * (len(inside) - 1) / 4)] for place in (number, number + 1))
        used_s = _server_cpu_s(end) - _server_cpu_s(begin)
        updates = max(1, end.version - begin.version)
        quarters.append(Pace(round(updates / (end.time_s - begin.time_s), 2), round(1e6 * used_s / updates, 1)))
    return quarters


def _server_cpu_s(sample: Sample) -> float:
    return next(reading.cpu_s for reading in sample.processes if reading.role == "server")
