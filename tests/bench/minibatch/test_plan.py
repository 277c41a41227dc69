"""Plans: contenders from names, the same for all but what is their own, and what can't be compared is refused."""

from __future__ import annotations

import pytest
from helpers.benchmark import CONFIG, plan_of

from asgd.bench.minibatch.plan import PRESETS, load_plan, preset_file
from asgd.errors import ConfigError
from asgd.sim.tuning import STEP_SIZE


def keys(plan):
    return [contender.key for contender in plan.contenders]


def test_contenders_are_named_once_and_minibatch_always_is_one():
    plan = plan_of(methods=["ringmaster", "asynchronous:constant", "ringmaster:scale", "minibatch:drop"], ddp=True)
    assert keys(plan) == ["ringmaster:scale", "asynchronous:constant", "minibatch", "ddp"]
    assert [contender.key for contender in plan.tuned] == keys(plan)[:-1]
    assert keys(plan_of(methods=["ringmaster"])) == ["ringmaster:scale", "minibatch"]


def test_measured_seeds_are_none_that_step_sizes_are_chosen_by():
    plan = plan_of("seed=7", tuning_seeds=100)
    assert not set(plan.tuning_seeds) & set(plan.fresh_seeds)
    assert plan.tuning_seeds[0] == 7 and plan.fresh_seeds == [107, 108, 109]


def test_all_contenders_run_alike_but_for_what_is_their_own():
    plan = plan_of("evaluation.evaluate=during", options={"ringmaster": {"R": 5}}, methods=["ringmaster:drop"])
    ringmaster, minibatch = (
        plan.run_config("linear", contender, {STEP_SIZE: 0.5}, 100) for contender in plan.contenders
    )
    assert ringmaster.method.name == "ringmaster" and ringmaster.method.rule == "drop"
    assert ringmaster.method.options == {"R": 5} and minibatch.method.options == {}
    for part in ("task", "cluster", "budget", "evaluation", "optimizer", "schedule", "checkpoints", "seed"):
        assert getattr(ringmaster, part) == getattr(minibatch, part)
    assert ringmaster.evaluation.evaluate == "after" and ringmaster.checkpoints.every_s == 0.0
    assert ringmaster.cluster.speeds.profile == "linear" and ringmaster.seed == 100


@pytest.mark.parametrize(
    ("overrides", "benchmark", "sentence"),
    [
        (["method.step_size=1"], {}, "--set method.step_size: each contender has its own"),
        (["budget.samples=100"], {}, "would end the faster contenders first"),
        (["budget.time_s=0", "budget.samples=9"], {}, "all contenders run for the same seconds"),
        (["evaluation.every_samples=0"], {}, "is too coarse"),
        (["benchmark.sedes=1"], {}, "benchmark.sedes: there is no such key"),
        (["benchmark.seeds=many"], {}, "Expected `int`"),
        ([], {"seeds": 0}, "benchmark.seeds = 0"),
        ([], {"widen": -1}, "benchmark.widen = -1"),
        ([], {"methods": ["sync"]}, "there is no method 'sync'"),
        ([], {"methods": ["asynchronous:fast"]}, "there is no rule 'fast'"),
        ([], {"options": {"throttle": {"q": 2}}}, "this method is no contender"),
        ([], {"options": {"asynchronous": {"q": 2}}}, "q"),
        ([], {"profiles": ["warp"]}, "'warp'"),
        (["cluster.speeds.profile=equal"], {"profiles": ["linear"]}, "set those"),
        ([], {"also": {"cluster.num_workers": [1, 2]}}, "that say how to train"),
        ([], {"also": {"optimizer.momentum": []}}, "allowed is a list"),
        ([], {"target": float("inf")}, "allowed is a finite number"),
        ([], {"lowest": 3.0}, "--from 3 --to 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(overrides, benchmark, sentence):
    with pytest.raises(ConfigError) as error:
        plan_of(*overrides, **benchmark)
    assert sentence in str(error.value)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load(name):
    plan = load_plan(preset_file(name), name=name)
    assert len(plan.fresh_seeds) == 3 and plan.protocol.confirm and "minibatch" in keys(plan)
    assert load_plan(preset_file(name), changed={"seeds": 5}).fresh_seeds[-1] == plan.config.seed + 104


def test_there_is_no_other_preset():
    with pytest.raises(ConfigError, match="--preset slow: allowed: quick, cifar10"):
        preset_file("slow")


def test_a_plain_configuration_will_do():
    plain = {key: part for key, part in CONFIG.items() if key != "benchmark"}
    assert keys(load_plan(plain)) == ["asynchronous:constant", "asynchronous:scale", "minibatch"]
