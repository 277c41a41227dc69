"""The server methods by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from asgd.core.methods.asynchronous import Asynchronous
from asgd.core.methods.base import Method, MethodInfo
from asgd.core.methods.bounded_staleness import BoundedStaleness
from asgd.core.methods.clipped import Clipped
from asgd.core.methods.dc_asgd import DelayCompensated
from asgd.core.methods.fedasync import FedAsync
from asgd.core.methods.fedbuff import FedBuff
from asgd.core.methods.gap_aware import GapAware
from asgd.core.methods.m_synchronous import MSynchronous
from asgd.core.methods.malenia import Malenia
from asgd.core.methods.minibatch import Minibatch
from asgd.core.methods.picky import Picky
from asgd.core.methods.random_assignment import RandomAssignment
from asgd.core.methods.rennala import Rennala
from asgd.core.methods.rescaled import Rescaled
from asgd.core.methods.ringleader import Ringleader
from asgd.core.methods.ringmaster import Ringmaster
from asgd.core.methods.throttle import Throttle
from asgd.errors import ConfigError

METHODS: dict[str, MethodInfo] = {
    "asynchronous": MethodInfo(
        make=Asynchronous,
        summary="apply every gradient when it arrives",
        needs="one step size; with the default rule no delay bound",
        use_when="workers of unequal or changing speed, the same data for all",
        reference="arXiv:2206.08307, Algorithm 1",
        favours_fast=("method", "rule"),
    ),
    "minibatch": MethodInfo(
        make=Minibatch,
        summary="wait for all workers, step with the mean",
        needs="one step size",
        use_when="workers of equal speed, or as the baseline",
        reference="arXiv:2206.08307, Example 2",
        max_jobs_per_worker=1,
        favours_fast=(),
    ),
    "random_assignment": MethodInfo(
        make=RandomAssignment,
        summary="apply every gradient; the next job goes to a worker drawn at random, which queues it",
        needs="one step size; the number of jobs in flight",
        use_when="every worker has other data and must count the same, whatever its speed",
        reference="arXiv:2206.08307, Algorithm 2; shuffled: arXiv:2310.20452",
        queues=True,
        options="concurrency = 0 (jobs in flight, 0: one per worker), order = uniform | shuffled",
        favours_fast=("rule",),
    ),
    "ringmaster": MethodInfo(
        make=Ringmaster,
        summary="apply gradients of delay below R, discard the others",
        needs="one step size and the delay threshold R",
        use_when="very unequal or unreliable workers, the same data for all",
        reference="arXiv:2501.16168, Algorithms 4 and 5",
        options="R >= 1 (default: twice the concurrency), cancel = false | true (stop jobs that got too old)",
    ),
    "clipped": MethodInfo(
        make=Clipped,
        summary="apply every gradient, shortened to a largest norm",
        needs="one step size and the norm; no delay bound",
        use_when="a few very slow workers, or gradients with heavy tails",
        reference="arXiv:2606.13287",
        options="clip > 0 (default 1)",
    ),
    "picky": MethodInfo(
        make=Picky,
        summary="apply gradients near whose parameters the model still is, discard the others",
        needs="one step size and the distance; memory for what outstanding jobs were given",
        use_when="delays of all lengths, a few of them very long, the same data for all",
        reference="arXiv:2106.11879",
        options="threshold > 0 (default 1)",
        needs_distance=True,
    ),
    "gap_aware": MethodInfo(
        make=GapAware,
        summary="divide every gradient, parameter by parameter, by how far the model has moved since",
        needs="one step size, the optimizer sgd; memory for what outstanding jobs were given and two vectors",
        use_when="many workers, with momentum; delays during which little moves shouldn't cost anything",
        reference="arXiv:1909.10802",
        options="0 <= decay < 1 (default 0.999)",
        needs_read_parameters=True,
        optimizers=("sgd",),
    ),
    "dc_asgd": MethodInfo(
        make=DelayCompensated,
        summary="correct every gradient to first order for what the model has moved since (DC-ASGD)",
        needs="one step size and lambda; memory for what outstanding jobs were given and two vectors",
        use_when="few workers of like speed, short delays that should cost less accuracy",
        reference="arXiv:1609.08326",
        options="strength >= 0 (lambda; default 2, or 0.04), adaptive = true | false, 0 <= decay < 1 (default 0.95)",
        needs_read_parameters=True,
    ),
    "throttle": MethodInfo(
        make=Throttle,
        summary="rounds: first gradients count 1/n, repeats of fast workers less and less",
        needs="one step size and q",
        use_when="between mini-batch and asynchronous: fast workers shouldn't idle, nor run away",
        reference="THROTTLE (2026)",
        max_jobs_per_worker=1,
        options="q >= 1 (default 1.5; 1 throttles nothing, inf is mini-batch)",
        weights_lost_by=("momentum", "weight_decay", "adam"),
    ),
    "m_synchronous": MethodInfo(
        make=MSynchronous,
        summary="step with the mean of the first m gradients of the current version",
        needs="one step size and m",
        use_when="few stragglers; the synchronous baseline that doesn't wait for them",
        reference="arXiv:2602.03802",
        max_jobs_per_worker=1,
        options="m >= 0 (default 0: all), cancel = true | false (stop the jobs of those who are late)",
        fair_with=("m", 0),
    ),
    "bounded_staleness": MethodInfo(
        make=BoundedStaleness,
        summary="apply every gradient when it arrives; nobody runs more than s jobs ahead of the slowest (SSP)",
        needs="one step size and s",
        use_when="similar speeds with hiccups; every worker's share of the steps must stay about equal",
        reference="Ho et al., NIPS 2013",
        max_jobs_per_worker=1,
        options="s >= 0 (default 3)",
        favours_fast=("rule",),
    ),
    "rennala": MethodInfo(
        make=Rennala,
        summary="step with the mean of S gradients of the current version, whoever computed them",
        needs="one step size and S, best about sigma^2/eps",
        use_when="very unequal or failing workers, noisy gradients, the same data for all",
        reference="arXiv:2305.12387",
        options="batch >= 0 (S; default 0: as many as workers)",
    ),
    "malenia": MethodInfo(
        make=Malenia,
        summary="step with the mean over workers of their mean gradients at the current version",
        needs="one step size and S, best about sigma^2/eps; memory for one vector per worker",
        use_when="unequal workers with different data, noisy gradients",
        reference="arXiv:2305.12387",
        options="batch >= 0 (S; default 0: as many as workers)",
        favours_fast=(),
    ),
    "fedbuff": MethodInfo(
        make=FedBuff,
        summary="buffer K answers, stale ones with less weight, then step with their mean",
        needs="one step size and the size of the buffer",
        use_when="many workers, noisy gradients or several local steps (an answer may be the difference of several)",
        reference="arXiv:2106.06639",
        options="buffer >= 1 (K; default 10)",
    ),
    "fedasync": MethodInfo(
        make=FedAsync,
        summary="mix each worker's parameters into the model when they arrive",
        needs="the mixing weight alpha, and local steps at the workers",
        use_when="communication is dear: workers take many local steps between two answers",
        reference="arXiv:1903.03934",
        options="0 < alpha < 1 (default 0.6), staleness = polynomial | constant | hinge, a > 0 (0.5), b >= 0 (4)",
        answers="parameters",
    ),
    "rescaled": MethodInfo(
        make=Rescaled,
        summary="asynchronous SGD with steps in proportion to the worker's time per gradient",
        needs="one step size and the rule `constant`; speeds are measured",
        use_when="different data on workers of unequal but steady speed",
        reference="arXiv:2605.13434",
        favours_fast=("rule",),
        weights_lost_by=("adam",),
    ),
    "ringleader": MethodInfo(
        make=Ringleader,
        summary="a table of all workers' gradients, one step for each worker per round",
        needs="one step size; memory for up to 2n gradients on the server",
        use_when="different data on workers of unequal or changing speed, not too many of them",
        reference="arXiv:2509.22860",
        max_jobs_per_worker=1,
        favours_fast=(),
    ),
}


def make_method(name: str, options: Mapping[str, object] | None = None, jobs_per_worker: int = 1) -> Method:
    """Return a new method `name` with its options.

    Args:
        name: a key of METHODS.
        options: the fields of the method's dataclass that a user may set.
        jobs_per_worker: jobs that a worker may have at once, >= 1.

    Errors: ConfigError for an unknown method or option, or for more jobs per worker than the method knows.

    Example:
        >>> make_method("minibatch").name
        'minibatch'
    """
    if name not in METHODS:
        raise ConfigError(f"method.name = {name!r}: there is no such method; allowed: {', '.join(METHODS)}")
    info = METHODS[name]
    if jobs_per_worker < 1:
        raise ConfigError(f"method.jobs_per_worker = {jobs_per_worker}: allowed is a number of at least 1")
    if info.max_jobs_per_worker is not None and jobs_per_worker > info.max_jobs_per_worker:
        raise ConfigError(
            f"method.jobs_per_worker = {jobs_per_worker}: method {name!r} gives a worker at most "
            f"{info.max_jobs_per_worker} at once"
        )
    # Fields that the method counts in are not options: an option is a field marked so by the method.
    allowed = [f.name for f in dataclasses.fields(info.make) if f.metadata.get("option")]
    for key in options or {}:
        if key not in allowed:
            raise ConfigError(
                f"method.options.{key}: method {name!r} has no such option; allowed: {', '.join(allowed) or 'none'}"
            )
    method: Method = info.make(**dict(options or {}))
    return method
