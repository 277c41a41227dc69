"""Each method on a scripted order whose result is worked out by hand, and what the registry refuses."""

from __future__ import annotations

import pytest
from helpers.core_driver import Driver, make_state

from asgd.core.methods import METHODS, make_method
from asgd.core.step_rules import RULES
from asgd.errors import ConfigError


def start(method, workers=3, **options):
    driver = Driver(make_state(method, workers=workers, **options), **{})
    driver.join(*range(workers))
    return driver


def test_asynchronous_steps_by_hand():
    """f(x) = x^2/2 from x^0 = 1 with eta = 1/2: exact in binary floating point."""
    driver = start("asynchronous", workers=2, step_size=0.5)
    driver.answers([0, 1, 1, 0])
    # x: 1 -> 1 - 1/2 = 1/2 (grad at x^0 = 1) -> 1/2 - 1/2 = 0 (worker 1 read x^0 = 1)
    #    -> 0 (worker 1 read x^2 = 0) -> 0 - 1/4 (worker 0 read x^1 = 1/2) = -1/4
    assert driver.x == -0.25
    assert driver.column("read_version") == [0, 0, 2, 1]


def test_minibatch_one_step_with_the_mean():
    gradients = {0: 1.0, 1: 2.0, 2: 6.0}
    driver = Driver(
        make_state("minibatch", workers=3, step_size=0.5), x=10.0, gradient=lambda x, job: gradients[job % 3]
    )
    driver.join(0, 1, 2)
    driver.answers([2, 0, 1])
    assert driver.x == 10.0 - 0.5 * 3.0
    assert driver.column("action") == ["accumulate"] * 3
    assert driver.column("steps") == [0, 0, 1]
    assert driver.column("step_size") == [None, None, 0.5]
    assert driver.column("delay") == [0, 0, 0]
    assert driver.column("concurrency") == [3, 2, 1]
    assert driver.state.version == 1 and driver.state.concurrency == 3


def test_minibatch_is_example_2():
    """One step of the mean = n single steps of eta/n without new models in between, for plain SGD."""
    n, eta, rounds = 4, 0.3, 5
    gradient = lambda x, job: x * (1.0 + job % n)  # noqa: E731  the workers' own gradients at x
    driver = Driver(make_state("minibatch", workers=n, step_size=eta), x=1.0, gradient=gradient)
    driver.join(*range(n))
    x = 1.0
    for _ in range(rounds):
        driver.answers(range(n))
        read = x
        for job in range(n):
            x -= eta / n * gradient(read, job)
        assert driver.x == pytest.approx(x, rel=1e-14)
    assert driver.state.version == rounds


def test_minibatch_goes_on_without_a_worker_that_left():
    gradients = {0: 1.0, 1: 2.0, 2: 6.0}
    driver = Driver(
        make_state("minibatch", workers=3, step_size=1.0), x=0.0, gradient=lambda x, job: gradients[job % 3]
    )
    driver.join(0, 1, 2)
    driver.answers([0, 1])
    driver.leave(2)
    # The loss closes the round: the mean of two.
    assert driver.x == -1.5
    row = driver.rows[-1]
    assert (row.action, row.steps, row.step_size, row.concurrency) == ("lost", 1, 1.0, 1)
    assert driver.column("action") == ["accumulate", "accumulate", "lost"]
    assert sorted(w for w, version, _ in driver.given.values() if version == 1) == [0, 1]


def test_minibatch_newcomer_waits_for_the_next_round():
    driver = start("minibatch", workers=2)
    driver.answer(0)
    driver.join(2)
    assert 2 not in driver.queue
    driver.answer(1)
    assert {worker for worker, version, _ in driver.given.values() if version == 1} == {0, 1, 2}


def test_minibatch_survives_everybody_leaving():
    driver = start("minibatch", workers=2)
    driver.leave(0)
    driver.leave(1)
    assert driver.state.version == 0
    driver.join(0)
    driver.answer(0)
    assert driver.state.version == 1


def test_minibatch_round_without_a_usable_gradient_is_done_again():
    driver = start("minibatch", workers=2)
    driver.answer(0, finite=False)
    driver.answer(1, finite=False)
    assert driver.state.version == 0 and driver.state.concurrency == 2
    driver.answers([0, 1])
    assert driver.state.version == 1


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_documentation(name):
    info = METHODS[name]
    assert info.summary and info.needs and info.use_when and info.reference
    for part in ("Formula:", "Example:", "Reference:"):
        assert part in info.make.__doc__


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("asynchronus",), "method.name = 'asynchronus': there is no such method; allowed: asynchronous, minibatch"),
        (
            ("minibatch", {"num_accumulated": 3}),
            "method.options.num_accumulated: method 'minibatch' has no such option",
        ),
        (("minibatch", {}, 2), "method.jobs_per_worker = 2: method 'minibatch' gives a worker at most 1"),
        (("asynchronous", {}, 0), "method.jobs_per_worker = 0"),
    ],
)
def test_refuses(arguments, sentence):
    with pytest.raises(ConfigError) as error:
        make_method(*arguments)
    assert sentence in str(error.value)


@pytest.mark.parametrize("method", ["minibatch", "m_synchronous", "rennala", "malenia"])
@pytest.mark.parametrize("rule", RULES)
def test_a_step_of_the_current_version_is_what_the_rule_makes_of_delay_0(method, rule):
    options = {"theory": {"smoothness": 1.0}, "mishchenko": {"num_workers": 2}}.get(rule)
    driver = start(method, 2, rule=rule, rule_options=options)
    for worker in [0, 1] * 4:
        driver.answer(worker)
    sizes = [row.step_size for row in driver.rows if row.steps]
    shortened = rule in ("adadelay", "wu_adaptive_1")  # as the docstrings say
    assert len(sizes) >= 2 and all((size < 0.1) == shortened for size in sizes[1:])
