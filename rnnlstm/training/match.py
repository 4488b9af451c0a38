"""Fair comparison: the hidden size that gives a model the budget of a one-layer LSTM with `model.hidden_size` units.

`parameters`: trained numbers of the whole network. `state`: numbers carried through time. `units`: H itself, with
several layers H·L. `step_time`: milliseconds of an update, measured here and now.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

from rnnlstm.cells import make_cell
from rnnlstm.config.errors import ConfigError
from rnnlstm.config.schema import Config, CurriculumOptions, Surgery
from rnnlstm.training.plan import Plan, make_plan
from rnnlstm.training.step import Trainer

MOST_UNITS = 65_536
TIMED_UPDATES = 5


def matched_hidden_size(config: Config) -> int:
    """The number of units whose cost comes nearest to the budget that `config.match` names.

    Raises: ConfigError if not even one unit keeps to it by half.
    """
    plan, H = make_plan(config), config.network.hidden_size
    if config.match == "none":
        return H
    if config.match == "step_time":
        return _by_time(plan, H)
    cost = {
        "parameters": lambda p, n: p.cost_of(n).parameters,
        "state": lambda p, n: p.cost_of(n).state,
        "units": lambda p, n: n * p.config.network.num_layers,
    }[config.match]
    budget = cost(_reference(plan), H)
    matched = nearest(lambda n: cost(plan, n), budget)
    if cost(plan, matched) > 1.5 * budget:
        raise ConfigError(f"match={config.match}: a {plan.cell.name} of one unit exceeds the budget of {budget:,}")
    return matched


def nearest(cost: Callable[[int], float], budget: float) -> int:
    """The n in 1 … 65,536 whose cost is nearest to the budget; `cost` grows with n."""
    low, high = 1, MOST_UNITS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return min((low, high), key=lambda n: abs(cost(n) - budget))


def _reference(plan: Plan) -> Plan:
    """The same task with a one-layer LSTM, whose cost is the budget."""
    network = dataclasses.replace(plan.config.network, num_layers=1, backend="auto")
    config = dataclasses.replace(plan.config, network=network, surgery=Surgery())
    return dataclasses.replace(plan, config=config, cell=make_cell("lstm"), backend="fused")


def _by_time(plan: Plan, H: int) -> int:
    """By halving steps over multiples of 4, each size timed in turn with the reference: times drift together."""
    reference = _updater(_reference(plan), H)
    low, high = 0, 1
    while high < 256 and _ratio(_updater(plan, 4 * high), reference) < 1:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _ratio(_updater(plan, 4 * middle), reference) < 1 else (low, middle)
    return 4 * max(low, 1)


def _updater(plan: Plan, hidden_size: int) -> Callable[[], None]:
    network = dataclasses.replace(plan.config.network, hidden_size=hidden_size)
    # At the task's own length: a curriculum would time each contender at others.
    config = dataclasses.replace(plan.config, network=network, curriculum=CurriculumOptions())
    trainer = Trainer(dataclasses.replace(plan, config=config), [0])
    step = 0

    def update() -> None:
        nonlocal step
        step += 1
        trainer.step(step)

    return update


def _ratio(ours: Callable[[], None], theirs: Callable[[], None]) -> float:
    """Median over rounds of our time / their time; the first round of each warms up."""
    ratios = []
    for _ in range(TIMED_UPDATES + 1):
        times = []
        for update in (ours, theirs):
            started = time.perf_counter()
            update()
            times.append(time.perf_counter() - started)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios[1:])
