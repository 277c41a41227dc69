"""Claim 1: both sides of the conservation law from a trace alone, and the average delay as an exact fraction."""

from __future__ import annotations

from fractions import Fraction

import pytest

from asgd.bench.claims import Effort
from asgd.bench.claims.conservation import (
    Setting,
    books,
    check,
    predicted_average,
    real_books,
    real_settings,
    row_of,
    virtual_books,
    virtual_settings,
)
from asgd.bench.claims.profiles import NAMES
from asgd.core.ledger import average_delay
from asgd.core.trace import TraceRow

SETTINGS = virtual_settings(quick=True)
SMALL = Setting("Algorithm 1", "asynchronous", 3, 3, 60)


def row(arrival, worker, read_version, version, action="apply", concurrency=2):
    steps = int(action == "apply")
    return TraceRow(
        arrival=arrival, time_s=float(arrival), worker=worker, job=arrival, read_version=read_version, version=version,
        delay=version - read_version, concurrency=concurrency, action=action, steps=steps,
        step_size=0.1 if steps else None, reason=None if steps else "too old", loss=1.0, samples=1, compute_s=1.0,
        wait_s=0.0,
    )  # fmt: skip


# Two workers: 0 answers twice, then 1, whose gradient of age 2 is dropped; 1 starts anew, 0 answers again.
BY_HAND = [row(0, 0, 0, 0), row(1, 0, 1, 1), row(2, 1, 0, 2, "discard"), row(3, 0, 2, 2)]


def test_a_history_worked_out_by_hand():
    seen = books(BY_HAND, outstanding=[1], average=0.0)
    assert (seen.used, seen.in_flight, seen.removed, seen.aged) == (0, 1, 2, 3)
    assert (seen.updates, seen.num_removed, seen.concurrencies, seen.problems) == (3, 1, {2}, [])
    assert seen.left == seen.aged


def test_an_age_that_is_off_by_one_is_seen():
    seen = books(BY_HAND, outstanding=[2], average=0.0)
    assert seen.left == seen.aged + 1
    shown = row_of(Setting("by hand", "asynchronous", 2, 2, 3), "none", "here", seen)
    assert shown.verdict == "does not hold" and "difference 1" in str(shown.measured)


def test_the_average_is_a_fraction_below_the_concurrency_less_one():
    assert predicted_average(500, 8) == Fraction(3500, 507)
    # The budget ends with an update: C - 1 jobs in flight. It ends in between: one more, of age 0, which is left out.
    for in_flight in ([5, 3], [5, 3, 0]):
        used = 10 * 2 - sum(in_flight)
        assert average_delay(used, 10, in_flight) == float(predicted_average(10, 3))
    assert predicted_average(10**9, 8) < 7


def test_another_average_than_the_predicted_one_is_seen():
    seen = virtual_books(SMALL, "linear")
    assert row_of(SMALL, "linear", "virtual", seen).verdict == "holds"
    for wrong in (2.0, seen.average * (1 + 1e-15)):
        assert row_of(SMALL, "linear", "virtual", seen._replace(average=wrong)).verdict == "does not hold"


def test_changing_concurrency_is_seen():
    seen = virtual_books(SMALL, "linear")
    shown = row_of(SMALL._replace(concurrency=2), "linear", "virtual", seen)
    assert shown.verdict == "does not hold"


@pytest.mark.parametrize("profile", NAMES)
def test_every_profile_keeps_the_law(profile):
    for setting in SETTINGS:
        setting = setting._replace(updates=150)
        seen = virtual_books(setting, profile)
        assert seen.updates == 150 and seen.left == seen.aged == 150 * (setting.concurrency - 1), setting
        assert row_of(setting, profile, "virtual", seen).verdict == "holds"


def test_gradients_are_removed_where_speeds_differ():
    for setting in SETTINGS[-2:]:
        assert virtual_books(setting, "linear").num_removed > 50
        assert virtual_books(setting, "equal").num_removed == 0


def test_the_outcome_has_a_row_for_each_profile_and_every_run_in_its_details(monkeypatch):
    other = SMALL._replace(label="Algorithm 1 again", updates=70)
    monkeypatch.setattr("asgd.bench.claims.conservation.virtual_settings", lambda quick: [SMALL, other])
    good = check(Effort(quick=True, real=False))
    assert good.verdict == "holds" and len(good.rows) == len(NAMES) and len(good.details) == 2 * len(NAMES)
    assert good.rows[0].setting == f"{NAMES[0]} (2 virtual)"
    assert good.rows[0].predicted == "260 = sum of T (C - 1); differences 0"
    assert good.rows[0].measured == "260; differences 0"
    assert f"{2 * len(NAMES)} runs under {len(NAMES)} profiles (virtual)" in good.finding
    assert "equal to the integer in all. Per update that is exactly C - 1" in good.finding


def test_the_outcome_counts_what_is_wrong(monkeypatch):
    wrong = SMALL._replace(concurrency=4)
    monkeypatch.setattr("asgd.bench.claims.conservation.virtual_settings", lambda quick: [wrong])
    bad = check(Effort(quick=True, real=False))
    assert bad.verdict == "does not hold" and f"wrong, in {len(NAMES)}." in bad.finding
    assert "exactly" not in bad.finding and "in all" not in bad.finding
    assert {row.verdict for row in bad.rows} == {"does not hold"} and "wrong in 1: " in str(bad.rows[0].measured)


def test_wrong_sums_of_one_run_are_seen_and_differences_do_not_cancel(monkeypatch):
    """Two runs of one profile are off by one, up and down: their sum is right."""

    def off_by_one(setting, profile):
        seen = virtual_books(setting, profile)
        shift = {"up": 1, "down": -1}.get(setting.label, 0) if profile == "linear" else 0
        return seen._replace(used=seen.used + shift)

    settings = [SMALL._replace(label=label) for label in ("up", "down", "right")]
    monkeypatch.setattr("asgd.bench.claims.conservation.virtual_settings", lambda quick: settings)
    monkeypatch.setattr("asgd.bench.claims.conservation.virtual_books", off_by_one)
    outcome = check(Effort(quick=True, real=False))
    verdicts = {row.setting.split(" ")[0]: row.verdict for row in outcome.rows}
    assert verdicts == {name: "does not hold" if name == "linear" else "holds" for name in NAMES}
    shown = next(str(row.measured) for row in outcome.rows if row.setting.startswith("linear"))
    assert shown.startswith("360; differences 2; wrong in 2: linear, up, virtual")
    assert outcome.verdict == "does not hold" and "wrong, in 2." in outcome.finding and "in all" not in outcome.finding


def test_real_runs_are_counted_with_the_profiles_that_they_had(monkeypatch):
    monkeypatch.setattr("asgd.bench.claims.conservation.virtual_settings", lambda quick: [SMALL])
    monkeypatch.setattr(
        "asgd.bench.claims.conservation.real_books",
        lambda setting, profile, budget: virtual_books(setting._replace(updates=50), profile),
    )
    outcome = check(Effort(quick=True, real=True))
    assert (
        f"{len(NAMES)} runs under {len(NAMES)} profiles (virtual) and 6 runs under 3 profiles (real" in outcome.finding
    )
    assert outcome.rows[0].setting == f"{NAMES[0]} (1 virtual, 2 real processes)" and outcome.verdict == "holds"
    assert len(outcome.details) == len(NAMES) + 6


@pytest.mark.cluster
@pytest.mark.parametrize("setting", real_settings(), ids=lambda setting: setting.method)
def test_real_processes_keep_the_law(setting):
    seen = real_books(setting, "half_slower", {"versions": 60})
    assert seen.updates == 60
    shown = row_of(setting, "half_slower", "real", seen)
    assert shown.verdict == "holds", shown
