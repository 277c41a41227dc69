"""What the tests of advice share."""

from __future__ import annotations

import pytest
from helpers.predictions import predicted_once


@pytest.fixture
def known_speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds that were asked for before in this process aren't simulated again."""
    monkeypatch.setattr("asgd.sim.advice.predicted", predicted_once)
