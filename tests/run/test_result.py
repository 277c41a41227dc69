"""What a run leaves, read back from Python: rows, summary, model, export."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from asgd.config import load_config, to_toml
from asgd.core.trace import TraceRow
from asgd.errors import ConfigError, RunError
from asgd.learn.gradient import build_model
from asgd.learn.task import load_task
from asgd.run.checkpoints import save
from asgd.run.formats import DelaySummary, Environment, MetricsRow, ServerSummary, Summary
from asgd.run.records import RunDirectory
from asgd.run.result import Run, export

TASK = """
import torch
from torch import nn
from asgd.learn.task import Task, TensorData

class Tied(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(width, width)
        self.last.weight = self.first.weight
        self.frozen = nn.Parameter(torch.randn(width), requires_grad=False)

    def forward(self, inputs_B):
        return self.last(self.drop(self.norm(self.first(inputs_B)))) * self.frozen

def make(width=5):
    inputs_N = torch.randn(32, width, generator=torch.Generator().manual_seed(0))
    return Task(lambda: Tied(width), nn.functional.mse_loss, TensorData(inputs_N, inputs_N))
"""


def trained(seed: int) -> tuple[Tensor, Tensor]:
    """Parameters and buffers that no initialisation gives: made of the seed; the running variance is positive."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1000, generator=generator), torch.rand(1000, generator=generator) + 0.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The directory of a run with checkpoints of versions 10 and 20."""
    (tmp_path / "task.py").write_text(TASK)
    config = load_config({"seed": 5, "task": {"function": f"{tmp_path / 'task.py'}:make"}, "budget": {"versions": 20}})
    path = tmp_path / "runs" / "first"
    task = load_task(config.task.function, config.task.options, tmp_path, config.seed, False)
    flat = build_model(task, config.seed, "cpu")
    with RunDirectory.create(path, to_toml(config)) as run:
        for version in (10, 20):
            values_P, values_S = trained(version)
            flat.params_P.copy_(values_P[: len(flat.params_P)])
            flat.state_buffers.copy_(values_S[: len(flat.state_buffers)])
            state = {"layout": flat.layout.digest}
            save(path / "checkpoints", {"state_S": flat.state_S, "momentum": torch.ones(3)}, state, version)
        run.append_trace(ROW)
        run.append_metrics(METRICS)
        run.write_summary(SUMMARY)
    return path


ROW = TraceRow(0, 0.1, 0, 0, 0, 0, 0, 1, "apply", 1, 0.05, None, 2.3, 64, 0.02, 0.0)
METRICS = MetricsRow(time_s=1.0, version=20, samples_seen=1280, test_loss=0.5, test_accuracy=0.75)
SUMMARY = Summary(
    method="asynchronous",
    versions=20,
    arrivals=20,
    discarded=0,
    lost=0,
    samples=1280,
    wall_s=1.0,
    concurrency=4,
    delay=DelaySummary(mean_applied=3.0, average=2.5, max=4, per_worker={0: 3.0}),
    outstanding=[],
    server=ServerSummary(busy_fraction=0.1, bytes_in=1, bytes_out=2),
    test_accuracy=0.75,
    parameters_sha256="00",
    finished=True,
    stopped_because="the budget of 20 versions is used up",
    seed=5,
    environment=Environment(python="3", torch="2", platform="Linux", cores=2),
)


def test_rows_and_summary(path: Path) -> None:
    run = Run(path)
    assert run.trace == [ROW]
    assert run.metrics == [METRICS]
    assert run.summary == SUMMARY
    assert run.config.seed == 5 and run.config.budget.versions == 20
    assert run.is_finished and run.notes == []
    assert repr(run) == f"Run({str(path)!r})"


def test_the_model_is_plain_and_has_the_newest_parameters_and_buffers(path: Path) -> None:
    before = torch.random.get_rng_state()
    model = Run(path).model()
    assert torch.equal(torch.random.get_rng_state(), before)
    values_P, values_S = trained(20)
    assert isinstance(model.first, nn.Linear) and isinstance(model.norm, nn.BatchNorm1d)
    assert torch.equal(model.first.weight.flatten(), values_P[:25])  # the first tensor of the flat vector
    assert model.norm.running_mean is not None and model.norm.running_var is not None
    assert torch.equal(model.norm.running_mean, values_S[:5])
    assert torch.equal(model.norm.running_var, values_S[16:21])  # the second buffer, after padding to 64 bytes
    assert model.last.weight is model.first.weight
    assert not model.training
    storages = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    assert len(storages) == len([*model.parameters(), *model.buffers()])  # no views of one flat vector
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model(torch.ones(2, 5)), model(torch.ones(2, 5)))


def test_an_earlier_version_on_request(path: Path) -> None:
    model = Run(path).model(version=10)
    assert torch.equal(model.first.weight.flatten(), trained(10)[0][:25])
    with pytest.raises(RunError, match="has no checkpoint of version 15; it has: 10, 20"):
        Run(path).model(version=15)


def test_a_damaged_checkpoint_is_said_and_skipped(path: Path) -> None:
    newest = path / "checkpoints" / "version-000000000020.safetensors"
    newest.write_bytes(newest.read_bytes()[:-4])
    run = Run(path)
    assert run.checkpoint().version == 10
    assert len(run.notes) == 1 and str(newest) in run.notes[0]
    with pytest.raises(RunError, match="cannot be read"):
        run.model(version=20)
    (path / "checkpoints" / "version-000000000010.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"No checkpoint of .* is whole"):
        run.model()


def test_a_task_that_has_changed_is_noticed(path: Path) -> None:
    file = path.parent.parent / "task.py"
    file.write_text(file.read_text().replace("width=5", "width=6"))
    with pytest.raises(RunError, match="the task has changed since the run"):
        Run(path).model()


def test_export_fits_the_users_own_module(path: Path, tmp_path: Path) -> None:
    file = export(path, tmp_path / "model.safetensors")
    model = Run(path).model()
    namespace: dict[str, type[nn.Module]] = {}
    exec(TASK, namespace)
    own = namespace["Tied"](5)
    own.load_state_dict(load_file(file))  # strict: every name, and no other
    own.eval()
    assert torch.equal(own(torch.ones(2, 5)), model(torch.ones(2, 5)))
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["version"] == "20"
    assert export(Run(path), file, version=10) == file
    assert torch.equal(load_file(file)["first.weight"].flatten(), trained(10)[0][:25])
    assert not [name for name in os.listdir(tmp_path) if "tmp" in name]


def test_export_says_what_is_wrong(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
        export(path, tmp_path / "model.pt")
    for place in (tmp_path / "nowhere" / "m.safetensors", tmp_path / "task.py" / "m.safetensors"):
        with pytest.raises(RunError, match=r"m\.safetensors cannot be written"):
            export(path, place)
    with pytest.raises(RunError, match="does not exist"):
        export(tmp_path / "no run", tmp_path / "m.safetensors")


def test_a_run_without_end_or_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunDirectory.create(path, to_toml(load_config({"budget": {"versions": 1}}))).close()
    run = Run(path)
    assert run.trace == [] and run.metrics == [] and not run.is_finished
    with pytest.raises(RunError, match=r"has no summary\.json"):
        _ = run.summary
    with pytest.raises(RunError, match=r"has no checkpoint\."):
        run.model()


def test_the_data_root_reaches_the_task(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "task.py").write_text(
        TASK.replace("width=5)", "data_root=None)").replace(
            "    inputs_N", "    width = 5; assert False, str(data_root)\n    inputs_N"
        )
    )
    monkeypatch.setenv("ASGD_DATA", "/from/environment")
    with pytest.raises(ConfigError, match="/from/environment"):
        Run(path).model()
    with pytest.raises(ConfigError, match="/given"):
        Run(path, data_root="/given").model()
    monkeypatch.delenv("ASGD_DATA")
    with pytest.raises(ConfigError, match=f"AssertionError: {Path.cwd() / 'data'}"):
        Run(path).model()
