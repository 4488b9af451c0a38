"""The command that measures the gradient flow."""

from __future__ import annotations

# The text of --help. It is assigned, since python -OO drops docstrings.
__doc__ = """\
Measure the gradient flow of networks, at initialisation or trained: why one forgets and another remembers.

    python -m rnnlstm.gradflow [key=value …]

Examples
  python -m rnnlstm.gradflow model=rnn,lstm task.length=200 model.hidden_size=128
  python -m rnnlstm.gradflow model=lstm model.init=default,chrono     settings side by side, separated by commas
  python -m rnnlstm.gradflow task=adding -- model=rnn model.nonlinearity=tanh,relu -- model=lstm
                                             groups of settings after --, on top of what stands before the first
  python -m rnnlstm.gradflow weights=runs/keyword_T100/lstm-1a2b3c4d  a trained network, as its run left it
  python -m rnnlstm.gradflow weights=runs/keyword_T100                every trained network below a folder
  python -m rnnlstm.gradflow weights=RUN,RUN show=influence           what each remembers, and could still learn
  python -m rnnlstm.gradflow weights=RUN show=surgery                 the table "what makes the LSTM remember"
  python -m rnnlstm.gradflow weights=RUN show=dynamics                fixed points and cycles that hold a word
  python -m rnnlstm.gradflow show=map,activations                     where gradients vanish and explode

Keys of its own; every other key is one of rnnlstm.train's
  weights=RUN,…      run folders of trained networks, or a folder with runs below it, instead of fresh networks;
                     further keys change their configuration; one with a cell or task of your own needs its
                     plugins=[MODULE,…] here too
  show=PART,…        flow (the table and most figures), influence (tokens replaced: does the answer change?),
                     surgery, activations, map, dynamics (fixed points and cycles under held input); default flow
  out=FOLDER         where figures, table.csv and results.json go; default gradflow
  sentence=TEXT      for keyword recall and show=flow: this text, not drawn ones; its first dish is the keyword
  sequences=N        sequences that are looked at; default 16, of influence and dynamics 256

Gradients are exact and in float64. The loss is that at the last scored position. `--help` prints this text.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rnnlstm.cli.exits import DONE, run_command
from rnnlstm.config.errors import ConfigError, OptionError, did_you_mean, show
from rnnlstm.config.schema import PARTS
from rnnlstm.config.untrusted import check_override

if TYPE_CHECKING:
    from rnnlstm.config.schema import Config
    from rnnlstm.reporting.gradflow import Setting

#: With more settings, figures would be unreadable.
MOST_SETTINGS = 8


@dataclass
class Request:
    """A parsed command line."""

    weights: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=lambda: ["flow"])
    out: str = "gradflow"
    sequences: int | None = None  #: None: as many as the part takes by itself
    sentence: str | None = None
    overrides: list[str] = field(default_factory=list)  #: for every setting
    groups: list[list[str]] = field(default_factory=list)  #: further overrides, for each group of settings
    help: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(_main, arguments)


def parse(arguments: Sequence[str]) -> Request:
    """Raises: ConfigError."""
    request = Request()
    for argument in arguments:
        check_override(argument)
        key, equals, value = argument.partition("=")
        if argument in ("-h", "--help"):
            request.help = True
        elif argument == "--":
            request.groups.append([])
        elif argument.startswith("-"):
            raise ConfigError(f"unknown option {show(argument)}{did_you_mean(key, ['--help'])}; see --help")
        elif key == "weights" and equals:
            request.weights = [place for place in value.split(",") if place]
            if not request.weights:
                raise OptionError(key, value, "needs a run folder")
        elif key == "show" and equals:
            request.parts = value.split(",")
            for part in request.parts:
                if part not in PARTS:
                    raise OptionError(key, part, f"must be one of {', '.join(PARTS)}{did_you_mean(part, PARTS)}")
        elif key == "out" and equals:
            request.out = value or "."
        elif key == "sentence" and equals:
            request.sentence = value
        elif key == "sequences" and equals:
            if not value.isdecimal() or len(value) > 4 or not 1 <= int(value) <= 4096:
                raise OptionError(key, value, "must be a whole number from 1 to 4,096")
            request.sequences = int(value)
        else:
            (request.groups[-1] if request.groups else request.overrides).append(argument)
    if request.sequences is not None and not {"flow", "influence", "dynamics"} & set(request.parts):
        rule = f"has no effect with show={','.join(request.parts)}; it belongs to show=flow, influence and dynamics"
        raise OptionError("sequences", request.sequences, rule)
    if request.sentence is not None and (request.parts != ["flow"] or request.sequences is not None):
        raise OptionError("sentence", request.sentence, "is one sequence, for show=flow alone")
    if request.weights and request.groups:
        raise ConfigError("weights= and groups of settings don't go together: name several runs, weights=A,B")
    return request


def _main(arguments: Sequence[str]) -> int:
    request = parse(arguments)
    if request.help:
        print(__doc__.strip())
        return DONE
    settings = _settings(request)
    if "dynamics" in request.parts:
        from rnnlstm.instruments.dynamics import require_dynamics

        for setting in settings:
            require_dynamics(setting.plan.config)

    from rnnlstm.reporting.gradflow import Analysis

    with Analysis(request.out) as analysis:
        if "flow" in request.parts:
            analysis.flow(settings, request.sequences or 16)
        if "influence" in request.parts:
            analysis.influence(settings, request.sequences or 256)
        if "dynamics" in request.parts:
            analysis.dynamics(settings, request.sequences or 256)
        if "surgery" in request.parts:
            analysis.surgery(settings)
        if "activations" in request.parts:
            analysis.activations()
        if "map" in request.parts:
            analysis.gain_map(settings[0])
    return DONE


def _settings(request: Request) -> list[Setting]:
    """Build every requested network before anything is measured. Raises: ConfigError."""
    from rnnlstm.jobs.job import compose_jobs, take_plugins
    from rnnlstm.record.folders import identity
    from rnnlstm.reporting.gradflow import Setting
    from rnnlstm.training.plan import make_plan
    from rnnlstm.training.weights import load_networks

    if request.weights:
        overrides = take_plugins(request.overrides)  # a run's own configuration may not import modules
        loaded = [run for place in request.weights for run in load_networks(place, overrides)]
        _refuse_too_many(loaded)
        return [_with(request, Setting(run.plan, run.seed, run.network(), run.place)) for run in loaded]
    configs: dict[tuple[str, int], Config] = {}  # the same network twice is shown once
    groups = request.groups or [[]]
    for job in compose_jobs(request.overrides, True, to_train=False, at_most=100, groups=groups):
        configs.setdefault((identity(job.config.tree), job.config.seed), job.config)
    plans = [(make_plan(config), config.seed) for config in configs.values()]
    _refuse_too_many(plans)
    return [_with(request, Setting(plan, seed, plan.network(seed))) for plan, seed in plans]


def _with(request: Request, setting: Setting) -> Setting:
    """The setting, looked at on the user's own sentence if there is one. Raises: ConfigError."""
    if request.sentence is None:
        return setting
    return replace(setting, batch=setting.plan.task.encode(request.sentence))


def _refuse_too_many(settings: Sequence[object]) -> None:
    if len(settings) > MOST_SETTINGS:
        raise ConfigError(f"{len(settings)} settings: at most {MOST_SETTINGS} can be compared in one figure")


if __name__ == "__main__":
    sys.exit(main())
