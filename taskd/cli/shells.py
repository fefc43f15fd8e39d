"""Completion in bash, zsh and fish: click's, but for what NAME=VALUE needs.

To bash ``=`` ends a word, so the words are cut here, from the line. After a name and its ``=``, and only there, no
blank follows, and a file is completed behind it. Whatever goes wrong, a person in the middle of a command line is
told nothing.
"""

from __future__ import annotations

import os
from typing import Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from taskd.cli import COMPLETE

BASH: Final = """\
%(complete_func)s() {
    local IFS=$'\\n' type value
    while IFS=',' read -r type value; do
        case $type in
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("$value"); [[ $value == *= ]] && compopt -o nospace ;;
        esac
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

ZSH: Final = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a bare told response suffix
    local type key descr
    response=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \
%(complete_var)s=zsh_complete ${words[1]} 2>/dev/null)}")

    for type key descr in ${response}; do
        if [[ "$type" == "file" ]]; then
            compset -P '*='
            _path_files -f
        elif [[ "$type" == "plain" ]]; then
            [[ "$key" == *= ]] && suffix=(-S '')
            if [[ "$descr" == "_" ]]; then
                bare+=("$key")
            else
                told+=("$key":"$descr")
            fi
        fi
    done

    (( $#told )) && _describe -V unsorted told -U "${suffix[@]}"
    (( $#bare )) && compadd -U -V unsorted "${suffix[@]}" -a bare
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

FISH: Final = """\
function %(complete_func)s
    set -l response (COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) \
%(complete_var)s=fish_complete %(prog_name)s 2>/dev/null)

    for completion in $response
        set -l found (string split -m1 "," -- $completion)
        if test $found[1] = "file"
            set -l word (string split -m1 "=" -- $found[2])
            if set -q word[2]
                string replace -r "^" "$word[1]=" -- (__fish_complete_path $word[2])
            else
                __fish_complete_path $found[2]
            end
        else
            echo $found[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class Bash(BashComplete):
    """Whose words are cut as a shell would, and not at every ``=``."""

    source_template = BASH

    def source(self) -> str:
        """Without asking which version of bash there is: the script may be for another machine."""
        return ShellComplete.source(self)

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        return words, incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Of values, what comes after the last ``=``: that is what bash takes for the word."""
        found = super().get_completions(args, incomplete)
        before = incomplete[: incomplete.rfind("=") + 1]
        for item in found:
            item.value = item.value.removeprefix(before)
        return found


class Zsh(ZshComplete):
    """Whose script knows that a value follows a ``=``."""

    source_template = ZSH

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        return _whole(super().get_completions(args, incomplete), incomplete)


class Fish(FishComplete):
    """As ``Zsh``."""

    source_template = FISH

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        return _whole(super().get_completions(args, incomplete), incomplete)


def _whole(found: list[CompletionItem], incomplete: str) -> list[CompletionItem]:
    """These shells replace the whole word, of which click leaves an option's ``--name=`` out."""
    option, equals, _ = incomplete.partition("=")
    if equals and option.startswith("-"):
        for item in found:
            item.value = f"{option}={item.value}"
    return found


for kind in (Bash, Zsh, Fish):
    add_completion_class(kind)


def script(command: click.Command, shell: str) -> str:
    """What a shell has to be told once."""
    return _of(command, shell).source()


def complete(command: click.Command) -> int:
    """Answer the shell that asks, in the environment; the exit code."""
    shell = os.environ[COMPLETE].partition("_")[0]
    try:
        found = _of(command, shell).complete()
    except Exception:
        return 1
    if found:
        print(found)
    return 0


def _of(command: click.Command, shell: str) -> ShellComplete:
    known = get_completion_class(shell)
    assert known is not None
    return known(command, {}, "taskctl", COMPLETE)
