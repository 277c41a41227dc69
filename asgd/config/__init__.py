"""The configuration of a run: read, checked, written out.

    config = load_config("configs/cifar10.toml", overrides=["cluster.num_workers=8"])

Every problem is one `ConfigError` sentence that names where the value stood, its key, what was given and what is
allowed.
"""

from __future__ import annotations

from asgd.config.checks import schedule_total
from asgd.config.loading import load_config, load_with_table, task_digest, to_toml
from asgd.config.schema import (
    BudgetConfig,
    CheckpointsConfig,
    ClusterConfig,
    Config,
    EvaluationConfig,
    MethodConfig,
    OptimizerConfig,
    RecordsConfig,
    RecoveryConfig,
    ScheduleConfig,
    SecurityConfig,
    SpeedsConfig,
    TaskConfig,
)

__all__ = [
    "BudgetConfig",
    "CheckpointsConfig",
    "ClusterConfig",
    "Config",
    "EvaluationConfig",
    "MethodConfig",
    "OptimizerConfig",
    "RecordsConfig",
    "RecoveryConfig",
    "ScheduleConfig",
    "SecurityConfig",
    "SpeedsConfig",
    "TaskConfig",
    "load_config",
    "load_with_table",
    "schedule_total",
    "task_digest",
    "to_toml",
]
