"""Which values to try next: Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), as a pure function.

What is suggested depends on the trials before it and on a seed alone, and no sampler's state lives on from batch to
batch. So a search that was interrupted goes on with the trials that it would have had.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from rnnlstm.options import ConfigError
from rnnlstm.search.space import Space
from rnnlstm.sections import OptunaOptions


def require_optuna() -> None:
    """Raises: ConfigError if it is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError("search=optuna needs pip install 'rnnlstm[optuna]'") from None


def suggest(
    space: Space, options: OptunaOptions, history: Sequence[tuple[Mapping[str, str], float]], count: int
) -> list[dict[str, str]]:
    """Values of the next `count` trials. `history` has the values of each earlier trial with its loss, which may be
    infinite; the lowest is the best.
    """
    import optuna
    from optuna.samplers import TPESampler

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: dimension.distribution() for key, dimension in space.dimensions.items()}
    study = optuna.create_study(direction="minimize")
    for values, loss in history:
        params = {key: dimension.value(values[key]) for key, dimension in space.dimensions.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=loss))
    found = []
    for number in range(len(history), len(history) + count):
        seed = int(np.random.SeedSequence((options.seed, number)).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # A constant liar takes trials that have no result yet for bad ones: trials of a batch keep apart.
            study.sampler = TPESampler(seed=seed, n_startup_trials=options.startup, constant_liar=True)
        params = study.ask(distributions).params
        found.append({key: dimension.text(params[key]) for key, dimension in space.dimensions.items()})
    return found
