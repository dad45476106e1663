"""The command line: parse, call the door, print. It decides nothing."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

import gyrostat
from gyrostat.cli.examples import EXAMPLES
from gyrostat.errors import GyrostatError, UsageError

if TYPE_CHECKING:
    from gyrostat.project import Project
    from gyrostat.terms import Told

ORDER_OF_USE = [
    "init",
    "up",
    "run",
    "status",
    "why",
    "changes",
    "who-served",
    "assignments",
    "open",
    "approve",
    "reject",
    "roll-back",
    "hold",
    "resume",
    "predict",
    "labels",
    "serve",
    "data",
    "config",
    "doctor",
    "gc",
    "backup",
    "restore",
    "audit",
    "keys",
    "notify",
    "completion",
    "demo",
]


class Gyrostat(click.Group):
    """Lists the commands in the order in which one needs them, and turns our errors into one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use."""
        return sorted(
            super().list_commands(ctx),
            key=lambda name: (
                ORDER_OF_USE.index(name) if name in ORDER_OF_USE else len(ORDER_OF_USE)
            ),
        )


@click.group(
    cls=Gyrostat, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(gyrostat.__version__, prog_name="gyrostat")
def cli() -> None:
    """Keep machine-learning models at their declared quality in production."""


def command(
    name: str, *, group: click.Group = cli, needs_project: bool = True
) -> Callable[..., Any]:
    """A command with `--json`, `--debug` and, where it needs one, `--project`; its function returns what to print."""

    def wrap(function: Callable[..., Told | None]) -> click.Command:
        @functools.wraps(function)
        def run(*, as_json: bool, debug: bool, project: str | None = None, **options: Any) -> None:
            try:
                if needs_project:
                    from gyrostat.project import Project

                    options["project"] = Project(project)
                told = function(as_json=as_json, **options)
            except GyrostatError as error:
                if debug:
                    raise
                fail(error, as_json=as_json)
            except KeyboardInterrupt:
                click.echo("stopped", err=True)
                sys.exit(130)
            except Exception as error:
                if debug:
                    raise
                text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no word'}"
                fail(
                    GyrostatError(
                        f"Unexpected: {text}. This is a mistake of Gyrostat's; --debug shows where."
                    ),
                    as_json=as_json,
                )
            else:
                if told is not None:
                    show(told, as_json=as_json)
                    sys.exit(told.exit_code)

        run = click.option("--debug", is_flag=True, help="Show tracebacks.")(run)
        run = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(run)
        if needs_project:
            run = click.option(
                "--project",
                metavar="DIR",
                default=None,
                help="The project's folder; default: found upwards from here.",
            )(run)
        whole = name if group is cli else f"{group.name} {name}"
        example = EXAMPLES.get(whole)
        # \b keeps click from wrapping what is to be copied.
        epilog = f"\b\nExample:\n  {example}" if example else None
        return group.command(name, epilog=epilog)(run)

    return wrap


def show(told: Told, *, as_json: bool) -> None:
    """Data to stdout."""
    if as_json:
        click.echo(json.dumps(told.facts, ensure_ascii=False, allow_nan=False, default=str))
    elif told.lines:
        click.echo(str(told))


def fail(error: GyrostatError, *, as_json: bool) -> None:
    """One error, not a traceback; talk goes to stderr, `--json` to stdout."""
    if as_json:
        click.echo(json.dumps(error.as_json(), ensure_ascii=False, default=str))
    else:
        first, *rest = str(error).splitlines() or [type(error).__name__]
        click.echo("\n".join([f"error  {first}", *(f"       {line}" for line in rest)]), err=True)
    sys.exit(error.exit_code)


def talk(as_json: bool) -> Callable[[str], None]:
    """Where progress goes: lines on stdout for people, on stderr when stdout is JSON."""
    return lambda line: click.echo(line, err=as_json)


def actor() -> str:
    """Who asks, as the operating system knows them."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def secret(text: str, *, confirm: bool = False) -> str:
    """A passphrase from a variable or the terminal; never from the command line, which others can read."""
    from gyrostat.config import secret as value_of

    if text == "ask":
        try:
            return click.prompt(
                "Passphrase", hide_input=True, confirmation_prompt=confirm, err=True
            )
        except click.Abort:
            raise KeyboardInterrupt from None
    if text and not text.startswith("env:"):
        raise UsageError(
            "--passphrase takes env:NAME, or ask: never the passphrase itself, which others could read. Nothing was done."
        )
    return value_of(text)


reason_option = click.option("--reason", default="", help="Why; it stands in the record.")


@command("init", needs_project=False)
@click.argument("folder", metavar="DIR", required=False)
@click.option(
    "--data",
    required=True,
    metavar="FILE",
    help="A table: CSV, TSV, JSON lines or Parquet; also as gzip or zip.",
)
@click.option(
    "--target", default=None, metavar="COL", help="The column to predict; default: the last one."
)
@click.option(
    "--task",
    type=click.Choice(["regression", "binary", "multiclass"]),
    default=None,
    help="Default: guessed.",
)
@click.option("--name", default=None, help="Name of the model; default: that of the folder.")
@click.option(
    "--explain",
    "column",
    default=None,
    metavar="COLUMN",
    help="Say how this column is judged, and write nothing.",
)
def init(
    *, folder: str | None, data: str, target: str | None, task: str | None, name: str | None, column: str | None, as_json: bool
) -> Told:  # fmt: skip
    """Make a project around a table."""
    from gyrostat.project import explain
    from gyrostat.project import init as make

    if column is not None:
        return explain(data, target, column, task=task)
    if folder is None:
        raise click.UsageError("Missing argument 'DIR'.")

    return make(folder, data, target, task=task, name=name)


@command("up")
@click.option("--port", type=int, default=None, help="Of the model server; default: server.port.")
@click.option(
    "--control-port",
    type=int,
    default=None,
    help="Of the control room; default: control_room.port.",
)
def up(*, project: Project, port: int | None, control_port: int | None, as_json: bool) -> Told:
    """Start the loop, the model server, the monitor and the control room; Ctrl-C ends them."""
    return project.up(port=port, control_port=control_port, say=talk(as_json), begins_again=True)


@command("run")
@click.argument("model", required=False)
@click.option("--no-wait", is_flag=True, help="Return at once; the loop goes on.")
@click.option(
    "--key", default=None, help="The same key is the same run, however often it is asked for."
)
@click.option(
    "--refused-ok",
    is_flag=True,
    help="Exit 0 also when the candidate is not released (for schedulers).",
)
@reason_option
def run(
    *,
    project: Project,
    model: str | None,
    no_wait: bool,
    key: str | None,
    refused_ok: bool,
    reason: str,
    as_json: bool,
) -> Told:
    """Make a candidate now: data, checks, training, gates, release."""
    return project.run(
        model,
        wait=not no_wait,
        key=key,
        refused_ok=refused_ok,
        reason=reason,
        actor=actor(),
        say=talk(as_json),
    )


@command("status")
@click.option(
    "--at", default=None, metavar="TIME", help="As it was then: ISO 8601, or 10m, 2h, 3d ago."
)
@click.option("--watch", is_flag=True, help="Again each second until Ctrl-C.")
def status(*, project: Project, at: str | None, watch: bool, as_json: bool) -> Told | None:
    """Does it hurt users, must you act, what is the loop doing, what changed."""
    if not watch:
        return project.status(at=at)
    import time

    while True:
        told = project.status(at=at)
        if sys.stdout.isatty() and not as_json:
            click.clear()
        show(told, as_json=as_json)
        time.sleep(1.0)


@command("why")
@click.argument("ref")
@click.option(
    "--forward",
    is_flag=True,
    help="What came of it: of a snapshot its runs, versions, and how many predictions.",
)
def why(*, project: Project, ref: str, forward: bool, as_json: bool) -> Told:
    """Where a thing comes from: run/7, version/4, snapshot/…, prediction/…, entry/184."""
    return project.why(ref, forward=forward)


@command("changes")
@click.argument("model", required=False)
@click.option("--since", default="24h", show_default=True, help="10m, 6h, 3d or an ISO 8601 time.")
def changes(*, project: Project, model: str | None, since: str, as_json: bool) -> Told:
    """What changed, newest first; where users were harmed, what lies closest before it stands on top."""
    return project.changes(model, since=since)


@command("who-served")
@click.argument("model", required=False)
@click.option(
    "--at", default=None, metavar="TIME", help="ISO 8601, or 10m, 2h, 3d ago; default: now."
)
def who_served(*, project: Project, model: str | None, at: str | None, as_json: bool) -> Told:
    """Which versions answered at a time, by the routes that were really applied."""
    return project.who_served(model, at=at)


@command("open")
@click.argument("ref", required=False, default="")
def open_page(*, project: Project, ref: str, as_json: bool) -> Told:
    """Print the address of a thing's page in the control room, and open it where there is a screen."""
    import webbrowser

    told = project.open(ref)
    has_screen = sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if has_screen and sys.stdout.isatty() and not as_json:
        webbrowser.open(told.facts["url"])
    return told


@command("approve")
@click.argument("ref", required=False)
@reason_option
def approve(*, project: Project, ref: str | None, reason: str, as_json: bool) -> Told:
    """Say yes to what waits: a model's name, version/…, or run/…."""
    return project.answer(ref, "approved", reason=reason, actor=actor())


@command("reject")
@click.argument("ref", required=False)
@reason_option
def reject(*, project: Project, ref: str | None, reason: str, as_json: bool) -> Told:
    """Say no to what waits."""
    return project.answer(ref, "rejected", reason=reason, actor=actor())


@command("roll-back")
@click.argument("model", required=False)
@click.option(
    "--to", type=int, default=None, metavar="N", help="To this version; default: the one before."
)
@click.option(
    "--with-data",
    is_flag=True,
    help="Bar its snapshot too: no training uses it until `data unbar`.",
)
@reason_option
def roll_back(
    *,
    project: Project,
    model: str | None,
    to: int | None,
    with_data: bool,
    reason: str,
    as_json: bool,
) -> Told:
    """Take the champion, or the candidate in traffic, off; then production is held."""
    return project.roll_back(
        model, to=to, with_data=with_data, reason=reason, actor=actor(), say=talk(as_json)
    )


@command("hold")
@click.argument("model", required=False)
@reason_option
def hold(*, project: Project, model: str | None, reason: str, as_json: bool) -> Told:
    """Release nothing until `resume`."""
    return project.hold(model, reason=reason, actor=actor())


@command("resume")
@click.argument("model", required=False)
@reason_option
def resume(*, project: Project, model: str | None, reason: str, as_json: bool) -> Told:
    """End the hold."""
    return project.resume(model, reason=reason, actor=actor())


@command("labels")
@click.argument("file", metavar="FILE")
@click.option("--model", default=None, help="Where a project has several.")
def labels(*, project: Project, file: str, model: str | None, as_json: bool) -> Told:
    """Hand in labels: a CSV or JSON-lines file with the columns id and label."""
    return project.labels(file, model=model)


@command("assignments")
@click.argument("model", required=False)
@click.option(
    "--version", type=int, default=None, help="The challenger's; default: the newest one."
)
@click.option("--key", default=None, metavar="KEY", help="One client's X-Gyrostat-Key alone.")
@click.option(
    "--csv",
    default=None,
    metavar="FILE",
    help="Write all of them there, those of predictions without a key too.",
)
def assignments(
    *, project: Project, model: str | None, version: int | None, key: str | None, csv: str | None, as_json: bool
) -> Told:  # fmt: skip
    """Who was given which arm while a release went on, and how the arms compare."""
    return project.assignments(model, version=version, key=key, csv=csv)


@command("predict")
@click.argument("model", required=False)
@click.option(
    "--input",
    "input_",
    required=True,
    metavar="FILE|snapshot/ID",
    help="CSV (also as gzip), JSON lines or Parquet; of any size. Text is read as data.source declares.",
)
@click.option(
    "--output",
    required=True,
    metavar="FILE",
    help="Ends in .parquet or .csv. It appears when it is whole; until then its parts stand beside it, and the same "
    "command goes on from there.",
)
@click.option("--version", "version", type=int, default=None, help="Default: the champion.")
@click.option(
    "--keep",
    multiple=True,
    metavar="COLUMN",
    help="A column of the input that stands beside each answer, besides the declared keys; may be given again.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exit 1 if any row has no answer (the output is there all the same); else only if none has one.",
)
def predict(
    *, project: Project, model: str | None, input_: str, output: str, version: int | None, keep: tuple[str, ...], strict: bool, as_json: bool,
) -> Told:  # fmt: skip
    """Answer every row of a table, however large: row, keys, prediction, version, and the error of a row that has none."""
    return project.predict(
        model, input=input_, output=output, version=version, keep=keep, strict=strict, actor=actor(),
        say=lambda line: click.echo(line, err=True),
    )  # fmt: skip


@command("serve")
@click.option("--port", type=int, default=None, help="Default: AIP_HTTP_PORT, or server.port.")
@click.option("--host", default=None, help="Other than 127.0.0.1 needs a token in GYROSTAT_TOKEN.")
def serve(*, project: Project, port: int | None, host: str | None, as_json: bool) -> Told:
    """The model server alone, from what is on disk."""
    return project.serve(host=host, port=port, say=talk(as_json))


@cli.group("data")
def data() -> None:
    """The table: what was understood of it, its snapshots, and barred ones."""


@command("report", group=data)
@click.argument("ref", required=False)
@click.option("--html", default=None, metavar="FILE", help="Write it as one page, too.")
def data_report(*, project: Project, ref: str | None, html: str | None, as_json: bool) -> Told:
    """What was understood of the table and why, and which rules hold; of a snapshot: its rules."""
    return project.data_report(ref, html=html)


@command("diff", group=data)
@click.argument("old", metavar="A")
@click.argument("new", metavar="B")
def data_diff(*, project: Project, old: str, new: str, as_json: bool) -> Told:
    """What snapshot B has otherwise than A: rows, columns, distributions."""
    return project.data_diff(old, new)


@command("unbar", group=data)
@click.argument("snapshot")
@reason_option
def data_unbar(*, project: Project, snapshot: str, reason: str, as_json: bool) -> Told:
    """Let a barred snapshot be used again."""
    return project.data_unbar(snapshot, reason=reason, actor=actor())


@command("config")
@click.option("--schema", is_flag=True, help="The JSON schema that editors use.")
def config(*, project: Project, schema: bool, as_json: bool) -> Told:
    """The declaration as it is in force, and where each value came from."""
    return project.config_schema() if schema else project.config()


@command("gc")
@click.option("--dry-run", is_flag=True, help="Say what would go; change nothing.")
def gc(*, project: Project, dry_run: bool, as_json: bool) -> Told:
    """Remove what nothing needs any more from the disk; say what stays, and why."""
    return project.gc(is_dry=dry_run)


@command("doctor", needs_project=False)
@click.option(
    "--project",
    "folder",
    metavar="DIR",
    default=None,
    help="The project's folder; default: found upwards from here.",
)
def doctor(*, folder: str | None, as_json: bool) -> Told:
    """Is this project fit to run? Database, chain, disk, ports, permissions, versions, clock, keys, and what is stuck."""
    from gyrostat.project import Project

    return Project(folder).doctor()


passphrase_option = click.option(
    "--passphrase",
    default="",
    metavar="env:NAME",
    help="Of the secret keys: env:NAME, or `ask`.",
)


@command("backup")
@click.argument("file", metavar="FILE")
@passphrase_option
def backup(*, project: Project, file: str, passphrase: str, as_json: bool) -> Told:
    """The whole project to one file, also while it runs; secret keys only with a passphrase."""
    return project.backup(file, passphrase=secret(passphrase, confirm=True))


@command("restore", needs_project=False)
@click.argument("file", metavar="FILE")
@click.argument("folder", metavar="DIR")
@passphrase_option
@click.option("--signed-by", default="", metavar="KEY", help="Refuse it unless this key signed it.")
def restore(*, file: str, folder: str, passphrase: str, signed_by: str, as_json: bool) -> Told:
    """A project again from a backup, in an empty folder; verified whole before anything is there."""
    from gyrostat.project import restore as make

    return make(file, folder, passphrase=secret(passphrase), signed_by=signed_by, actor=actor())


@cli.group("audit")
def audit() -> None:
    """The ledger as evidence."""


@command("verify", group=audit)
@click.option(
    "--anchor",
    "anchors",
    multiple=True,
    metavar="FILE",
    help="Heads that somebody else kept, one JSON line each.",
)
def audit_verify(*, project: Project, anchors: tuple[str, ...], as_json: bool) -> Told:
    """Check the whole chain; names the first entry that was changed, dropped, inserted or moved."""
    return project.audit_verify(anchors=anchors)


@command("anchor", group=audit)
def audit_anchor(*, project: Project, as_json: bool) -> Told:
    """Keep the head of the chain now, where `audit.anchor` says."""
    return project.audit_anchor()


@command("replay", group=audit)
@click.argument("model", required=False)
def audit_replay(*, project: Project, model: str | None, as_json: bool) -> Told:
    """Judge every recorded decision again from what was recorded with it."""
    return project.audit_replay(model)


@cli.group("keys")
def keys() -> None:
    """Who signs."""


@command("rotate", group=keys)
@reason_option
def keys_rotate(*, project: Project, reason: str, as_json: bool) -> Told:
    """Sign with a new key from now on; what the old one signed stays trusted."""
    return project.keys_rotate(reason=reason, actor=actor())


@cli.group("notify")
def notify() -> None:
    """Who is told, and by what."""


@command("test", group=notify)
def notify_test(*, project: Project, as_json: bool) -> Told:
    """Send each declared receiver a test message now."""
    return project.notify_test()


@command("completion", needs_project=False)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str, as_json: bool) -> Told:
    """Print what makes a shell complete our commands; evaluate it in the shell's start-up file."""
    from click.shell_completion import get_completion_class

    from gyrostat.terms import Told

    kind = get_completion_class(shell)
    assert kind is not None  # click has all that the choice allows
    script = kind(cli, {}, "gyrostat", "_GYROSTAT_COMPLETE").source()
    return Told((script,), {"shell": shell, "script": script})


@command("demo", needs_project=False)
@click.option(
    "--data", default=None, metavar="FILE", help="Your own table; default: 1,599 red wines."
)
@click.option("--target", default=None, metavar="COL", help="Default: the last column.")
@click.option(
    "--folder",
    default=None,
    metavar="DIR",
    help="Where the project goes; default: a temporary folder.",
)
@click.option("--exit", "ends", is_flag=True, help="End everything when the story is told.")
def demo(
    *, data: str | None, target: str | None, folder: str | None, ends: bool, as_json: bool
) -> Told:
    """The whole loop as one story, with real traffic, in minutes."""
    from gyrostat.demo.story import tell

    return tell(data=data, target=target, folder=folder, ends=ends, say=talk(as_json))


def main() -> None:
    """Entry point of the `gyrostat` command."""
    if sys.platform == "win32":
        click.echo("error  Gyrostat runs on Linux and macOS; on Windows use WSL.", err=True)
        sys.exit(2)
    cli()


if __name__ == "__main__":
    main()
