"""Each fuzz target runs, for so many inputs, and finds nothing. For longer: `python tests/fuzz/fuzz.py TARGET`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("target", "runs"), [("decoder", 20_000), ("cifar", 20_000), ("server", 300)])
def test_nothing_is_found(target, runs, tmp_path):
    pytest.importorskip("atheris", reason="needs the extra fuzz")
    script = Path(__file__).with_name("fuzz.py")
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, str(script), target, f"-runs={runs}", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {runs} runs" in done.stderr and [path.name for path in tmp_path.iterdir()] == ["temporary"]
