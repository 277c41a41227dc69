"""Where a method suits data or optimizer badly: the sentences of warning, from the configuration alone."""

from __future__ import annotations

from asgd.config import Config
from asgd.core.methods import METHODS, make_method


def data_warning(config: Config) -> str | None:
    """A sentence if the workers have different data and the method, or its step-size rule, weighs the fast ones more.

    A run approaches the minimiser of the objective, the mean over the workers, if it takes equally much of each.
    """
    method, rule = config.method.name, config.method.rule
    info = METHODS[method]
    biases = info.favours_fast
    if info.fair_with is not None:
        option, value = info.fair_with
        if getattr(make_method(method, config.method.options), option) == value:
            biases = ()
    causes = []
    if "method" in biases:
        causes.append(f"method {method} can use more gradients of the fast ones")
    if "rule" in biases and rule != "constant":
        causes.append(f"rule {rule} shortens or drops the late gradients of the slow ones")
    if config.task.partition == "iid" or not causes:
        return None
    return (
        f'warning: task.partition = "{config.task.partition}" gives the workers different data, and where their speeds '
        f"differ {' and '.join(causes)}: the run is then biased toward the data of fast workers (delay-adaptive steps "
        "are not for different data whose delays depend on the worker)"
    )


def optimizer_warning(config: Config) -> str | None:
    """A sentence if the method says by step sizes how much a gradient counts, and the optimizer doesn't go by them.

    No refusal: such runs are defined and may do well, but they aren't what the method's source describes.
    """
    method, optimizer = config.method.name, config.optimizer
    causes = {
        "momentum": (optimizer.momentum > 0.0, f"optimizer.momentum = {optimizer.momentum:g}"),
        "weight_decay": (optimizer.weight_decay > 0.0, f"optimizer.weight_decay = {optimizer.weight_decay:g}"),
        "adam": (optimizer.name != "sgd", f'optimizer.name = "{optimizer.name}"'),
    }
    found = [causes[name][1] for name in METHODS[method].weights_lost_by if causes[name][0]]
    if not found:
        return None
    return (
        f"warning: {', '.join(found)}: method {method} weighs gradients by the step sizes of their updates, which "
        "holds for plain SGD; every update applies this in full, however little its gradient is to count"
    )
