"""Tab completion for bash (and zsh, through bashcompinit): every key, every choice, every flag.

The words are written into the script, so that a press of Tab starts no Python. Plugins' own keys are not among them.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping

from rnnlstm.cli.help import words
from rnnlstm.config.keys import PARTS

#: Commands that take key=value, and what they take besides.
COMPOSED = {
    "rnnlstm-train": ["--multirun", "--cfg=job", "--config-dir", "--help", "--completion=bash"],
    "rnnlstm-gradflow": ["weights=", *(f"show={part}" for part in PARTS), "out=", "sequences=", "--help"],
}

SCRIPT = r"""# Tab completion of rnnlstm's commands. In ~/.bashrc:   eval "$(rnnlstm-train --completion=bash)"
# In ~/.zshrc, before that line:                          autoload -U bashcompinit && bashcompinit
_rnnlstm_complete() { # $1: the words; bash cuts the line at = and :, so what is typed is taken from the line itself
    local line=${COMP_LINE:0:$COMP_POINT} typed word
    typed=${line##*[[:space:]]}
    COMPREPLY=()
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$1" -- "$typed")
    [[ $COMP_WORDBREAKS == *=* && $typed == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${typed%="${typed##*=}"}="}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}
"""


def bash_script(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """A script for a shell to evaluate. `parsers` are those of the commands with flags, by the command's name."""
    keys = words()
    parts = [SCRIPT]
    for command, flags in COMPOSED.items():
        parts.append(_function(command, [*flags, *keys]))
    for name, parser in parsers.items():
        parts.append(
            _function(f"rnnlstm-{name}", [flag for action in parser._actions for flag in action.option_strings])
        )
    return "".join(parts)


def _function(command: str, choices: list[str]) -> str:
    name = f"_{command.replace('-', '_')}"
    quoted = shlex.quote(" ".join(choices))
    return f"{name}() {{ _rnnlstm_complete {quoted}; }}\ncomplete -o default -F {name} {command}\n"
