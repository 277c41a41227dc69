"""What a configuration holds: one frozen struct for each table of the file, with every default.

Counts are whole numbers, times are seconds, and 0 means "none" or "no limit" where it is said, since TOML has no null.
Which values are allowed is in `checks.py`; these structs only say names, types and defaults.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

OptimizerName = Literal["sgd", "adam", "adamw"]
PartitionName = Literal["iid", "dirichlet", "by_label", "by_size"]
ScheduleName = Literal["constant", "cosine", "step"]
ScheduleUnit = Literal["versions", "samples"]
Evaluate = Literal["during", "after", "never"]
RecoveryMode = Literal["checkpoint", "exact"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration: immutable, and no key that isn't named here."""


class TaskConfig(Section, frozen=True):
    """`[task]`: the model, the loss and the data.

    Attributes:
        function: a built-in task's name, `path/to/file.py:function` or `package.module:function`; gives the task.
        options: the keyword arguments of that function.
        batch_size: samples of one job, >= 1.
        micro_batches: pieces that a batch is computed in, >= 1: less memory, and a cancelled job is noticed sooner.
        download: whether a data set that is missing may be fetched.
        partition: which samples a worker has: "iid" (all workers go through the same data together), "dirichlet",
            "by_label" or "by_size"; see asgd.learn.partition. The objective is then the mean over the workers of the
            mean loss over the samples of each: the weight of a worker is 1/num_workers, whatever the size of its share.
        partition_options: the partition's own options, such as alpha of "dirichlet".
    """

    function: str = "shapes"
    options: dict[str, Any] = {}
    batch_size: int = 64
    micro_batches: int = 1
    download: bool = False
    partition: PartitionName = "iid"
    partition_options: dict[str, Any] = {}


class MethodConfig(Section, frozen=True):
    """`[method]`: what the server does with a gradient, and how far it steps.

    Attributes:
        name: a method, as listed by `asgd methods`.
        step_size: the base step size eta, > 0.
        rule: the rule that makes a gradient's step size from eta and its delay, as listed by `asgd methods`.
        rule_options: the rule's own options, such as k of `drop`.
        options: the method's own options.
        jobs_per_worker: jobs that a worker has in flight, >= 1; 2 hides the network behind the computation.
        local_steps: SGD steps that a worker makes in a job, answering with their difference or, if the method wants
            that, with its parameters (0: it answers with a gradient).
        local_step_size: of these steps, > 0.
        norm_guard: a gradient whose norm is over so many times the median of the last ones is discarded (0: none is);
            see asgd.core.guard.
        quarantine_after: a worker whose gradients are refused (not finite, or by the norm guard) so many times in a
            row, at models at which those of others are not, gets no more jobs (0: it goes on).
    """

    name: str = "asynchronous"
    step_size: float = 0.05
    rule: str = "scale"
    rule_options: dict[str, Any] = {}
    options: dict[str, Any] = {}
    jobs_per_worker: int = 1
    local_steps: int = 0
    local_step_size: float = 0.05
    norm_guard: float = 0.0
    quarantine_after: int = 20


class OptimizerConfig(Section, frozen=True):
    """`[optimizer]`: the server's update, as in torch.optim.

    Attributes:
        name: "sgd", "adam" or "adamw".
        momentum: of sgd, from 0 to below 1.
        nesterov: of sgd; needs momentum.
        weight_decay: >= 0.
        betas: of adam and adamw, each from 0 to below 1.
        eps: of adam and adamw, > 0.
        clip_norm: the largest norm of a gradient; a longer one is shortened to it (0: as it is).
    """

    name: OptimizerName = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float = 0.0


class ScheduleConfig(Section, frozen=True):
    """`[schedule]`: how the base step size changes in the course of a run.

    Attributes:
        name: "constant", "cosine" (falls to `final_factor`) or "step" (times `gamma` at each milestone).
        over: the unit of the three counts below, "versions" or "samples".
        total: length of the schedule (0: the budget in the same unit).
        warmup: length of the linear rise from 0 at the start (0: none).
        milestones: of "step", rising.
        gamma: of "step", above 0 to 1.
        final_factor: of "cosine", from 0 to 1.
    """

    name: ScheduleName = "constant"
    over: ScheduleUnit = "samples"
    total: int = 0
    warmup: int = 0
    milestones: list[int] = []
    gamma: float = 0.1
    final_factor: float = 0.0


class SpeedsConfig(Section, frozen=True):
    """`[cluster.speeds]`: emulated speeds of the workers; which of the keys count depends on the profile.

    Attributes:
        profile: "real" (nobody waits) or a profile of asgd.run.speeds.
        seconds: the time per job of the fastest worker, > 0.
        factor: how many times slower the slow ones are, >= 1.
        communication_s: an extra delay of every job, >= 0.
        period_s: length of one period of "changing" and "outages", > 0.
        outage_s: length of one outage, >= 0; shorter than the period.
        alpha: the tail of "pareto", > 1.
    """

    profile: str = "real"
    seconds: float = 0.1
    factor: float = 4.0
    communication_s: float = 0.0
    period_s: float = 10.0
    outage_s: float = 5.0
    alpha: float = 1.5


class ClusterConfig(Section, frozen=True):
    """`[cluster]`: the processes, where they meet and when one counts as lost.

    Attributes:
        num_workers: >= 1.
        address: of the server: "ipc" (a private socket on this machine), `ipc://path` or `tcp://host:port`.
        device: where workers compute: "auto", "cpu", "cuda" or "cuda:N".
        threads_per_worker: >= 1.
        autocast: whether workers compute in bfloat16 where that is safe.
        max_restarts: of each worker, and of the evaluator, >= 0.
        max_server_restarts: >= 0.
        start_timeout_s: how long the server waits for its first workers.
        server_timeout_s: a worker gives up after this silence of the server.
        min_lease_s: a job is lost after 10 x the worker's longest job, but not before this time ...
        max_lease_s: ... and at the latest after this one; an evaluator may take so long for one evaluation.
        speeds: emulated speeds.
    """

    num_workers: int = 4
    address: str = "ipc"
    device: str = "auto"
    threads_per_worker: int = 1
    autocast: bool = False
    max_restarts: int = 3
    max_server_restarts: int = 3
    start_timeout_s: float = 60.0
    server_timeout_s: float = 60.0
    min_lease_s: float = 30.0
    max_lease_s: float = 3600.0
    speeds: SpeedsConfig = SpeedsConfig()


class BudgetConfig(Section, frozen=True):
    """`[budget]`: when a run ends; the first limit that is reached counts, and at least one must be set.

    Attributes:
        versions: updates applied (0: no limit).
        samples: samples of the gradients that arrived, used or not (0: no limit).
        gradients: gradients that arrived (0: no limit).
        time_s: seconds (0: no limit).
    """

    versions: int = 0
    samples: int = 0
    gradients: int = 0
    time_s: float = 0.0


class EvaluationConfig(Section, frozen=True):
    """`[evaluation]`: when the model is evaluated; without any of `every_*`, at 10 evenly spaced points of the budget.

    Attributes:
        evaluate: "during" the run, "after" it (from snapshots, so that no timing is disturbed) or "never".
        every_versions: updates between evaluations (0: not by this count).
        every_samples: samples between evaluations (0: not by this count).
        every_s: seconds between evaluations (0: not by time).
        batch_size: samples evaluated at once, >= 1.
    """

    evaluate: Evaluate = "during"
    every_versions: int = 0
    every_samples: int = 0
    every_s: float = 0.0
    batch_size: int = 500


class CheckpointsConfig(Section, frozen=True):
    """`[checkpoints]`: when the server's state is saved; the end of a run always is.

    Attributes:
        every_versions: updates between checkpoints (0: not by this count).
        every_s: seconds between checkpoints (0: not by time).
        keep: how many of the latest are kept, >= 1.
    """

    every_versions: int = 0
    every_s: float = 30.0
    keep: int = 2


class RecoveryConfig(Section, frozen=True):
    """`[recovery]`: how a run goes on after its server has died.

    Attributes:
        mode: "checkpoint" goes on from the newest good checkpoint: what came after it is moved out of the record, and
            jobs in flight are lost; "exact" computes the events after it again from the journal, ends on the same bytes
            and keeps workers and jobs. For that the server keeps what each job in flight was given: one more copy of
            the parameters per update, memory and checkpoints for as many versions as there are jobs in flight.
        sync_s: seconds between two times that the journal is brought to the disk, >= 0: what a power cut may cost; the
            death of a process costs nothing.
        grace_s: in mode "exact", how long the workers of before may take to come back with their jobs, >= 0.
    """

    mode: RecoveryMode = "checkpoint"
    sync_s: float = 0.2
    grace_s: float = 10.0


class RecordsConfig(Section, frozen=True):
    """`[records]`: what a run leaves beside its trace, metrics and summary.

    Attributes:
        report: whether a run from the command line draws its report.html when it has ended.
        tensorboard: whether the server (or the simulator) writes TensorBoard's event files into RUN/tensorboard/ while
            the run goes on: at most one point per second, see asgd.run.board. Needs the package tensorboard.
    """

    report: bool = True
    tensorboard: bool = False


class SecurityConfig(Section, frozen=True):
    """`[security]`: who may take part, and what one of them may do to the server.

    Attributes:
        keys: the directory of this machine's keys, as made by `asgd keys` (beside the configuration, if relative); with
            it everything is encrypted and only keys of the server's list get in. "": no keys, and the server listens
            only where this machine alone can reach it.
        key: the name of the key in that directory that a worker or evaluator uses.
        insecure: whether the server may listen to other machines without keys.
        max_peers: connections that the server keeps at once, and clients that it lets in, >= 0 (0: 2 x
            cluster.num_workers + 64); worker numbers are below it, or below cluster.num_workers if that is more.
        max_refusals: messages of one client that are refused before its connection is cut off, >= 1.
    """

    keys: str = ""
    key: str = "worker"
    insecure: bool = False
    max_peers: int = 0
    max_refusals: int = 100


class Config(Section, frozen=True):
    """A whole configuration, every default filled in. This constructor checks nothing; `load_config` does.

    Attributes:
        seed: of everything random in the run, from 0.
    """

    seed: int = 0
    task: TaskConfig = TaskConfig()
    method: MethodConfig = MethodConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    cluster: ClusterConfig = ClusterConfig()
    budget: BudgetConfig = BudgetConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    records: RecordsConfig = RecordsConfig()
    security: SecurityConfig = SecurityConfig()
