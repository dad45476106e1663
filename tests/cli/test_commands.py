"""The command line as an instrument: each command shows how it is typed, and completes."""

import os
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from gyrostat.cli.examples import EXAMPLES
from gyrostat.cli.main import cli


def commands(group=cli, before=()):
    """Each command by its whole name."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


def test_every_command_has_an_example_and_every_example_a_command():
    assert {name for name, _ in commands()} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_shown_unbroken_and_is_understood(name):
    shown = CliRunner().invoke(cli, [*name.split(), "--help"], terminal_width=60).output
    assert f"  {EXAMPLES[name]}\n" in shown
    _, _, typed = EXAMPLES[name].rpartition("$(")
    program, *words = shlex.split(typed.rstrip(')"') if "$(" in EXAMPLES[name] else typed)
    assert program == "gyrostat"
    command = dict(commands())[name]
    # Raises where an option or an argument is none of the command's.
    command.make_context(name, words[len(name.split()) :])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell):
    done = CliRunner().invoke(cli, ["completion", shell])
    assert (done.exit_code, "_GYROSTAT_COMPLETE" in done.output) == (0, True)


def test_completion_knows_commands_and_their_options():
    def offered(words):
        environ = os.environ | {"_GYROSTAT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}  # fmt: skip
        code = "import sys; sys.argv = ['gyrostat']; from gyrostat.cli.main import main; main()"
        return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False).stdout  # fmt: skip

    assert "plain,status" in offered("gyrostat sta")
    assert "plain,--forward" in offered("gyrostat why --f")


def test_another_shell_is_refused_with_those_that_are_known():
    done = CliRunner().invoke(cli, ["completion", "tcsh"])
    assert (done.exit_code, "'bash', 'zsh', 'fish'" in done.output) == (2, True)
