"""A small task with batch statistics, buffers that change within a version, and dropout."""

from __future__ import annotations

import torch
from torch import nn

from asgd.learn.task import Task, TensorData


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2))


def task() -> Task:
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
    data = TensorData(x, (x.sum(1) > 0).long())
    return Task(model=model, loss=nn.functional.cross_entropy, train=data)
