"""The ``etcsched`` command: its table of commands, its global options, and how it ends.

Commands are imported when they are called, so that ``--help`` is quick, and so that the agent can
start its supervisor before gRPC exists in the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from etcsched.core.errors import EtcschedError, UsageError
from etcsched.core.text import is_text
from etcsched_cli import INTERRUPTED
from etcsched_cli.config_file import choose_context, choose_file, complete_context
from etcsched_cli.options import option
from etcsched_cli.settings import Settings

__all__ = ["cli", "main"]


class Entry(NamedTuple):
    """Where a command is, and what ``etcsched --help`` says of it."""

    place: str
    summary: str
    needs_linux: bool = False


COMMANDS: Final[dict[str, Entry]] = {
    "status": Entry("status:status", "Show the cluster on one screen."),
    "top": Entry("top:top", "Watch the cluster in one screen."),
    "apply": Entry("apply:apply", "Apply job files: jobs and settings."),
    "validate": Entry("apply:validate", "Check job files, without a cluster."),
    "export": Entry("export:export", "Write job files of what the cluster has."),
    "import": Entry("imports:import_", "Turn crontabs into job files."),
    "jobs": Entry("jobs:jobs", "List, trigger, pause, resume, delete jobs."),
    "explain": Entry("explain:explain", "Say why a run waits or runs there, or a job doesn't run."),
    "runs": Entry("runs:runs", "List, show, read, cancel, release, resubmit, wait for runs."),
    "calendars": Entry("calendars:calendars", "List, show, delete, import calendars."),
    "conflicts": Entry("conflicts:conflicts", "List, show, delete conflict groups."),
    "recovery": Entry("recovery:recovery", "Preview what the end of an outage would bring."),
    "agents": Entry("agents:agents", "List, show, drain, undrain agents."),
    "settings": Entry("cluster_settings:settings", "Show what holds for the whole cluster."),
    "pause": Entry("pauses:pause", "Pause the whole cluster: nothing starts."),
    "resume": Entry("pauses:resume", "Resume the whole cluster."),
    "leader": Entry("leader:leader", "Show who leads and who stands by."),
    "doctor": Entry("doctor:doctor", "Look for what is wrong, or soon will be."),
    "health": Entry("health:health", "Ask this host's daemons whether they are well."),
    "audit": Entry("audit:audit", "Judge what a cluster did, live or from a recording."),
    "contexts": Entry("contexts:contexts", "List the clusters that the configuration file names."),
    "completion": Entry("completion:completion", "Print the completion script of a shell."),
    "scheduler": Entry("scheduler:scheduler", "Run a scheduler node.", True),
    "agent": Entry("agent:agent", "Run an agent.", True),
    "up": Entry("up:up", "Run a whole cluster on this machine.", True),
    "demo": Entry("demo:demo", "Kill a leader and an agent, and see what is lost.", True),
}


class LazyGroup(click.Group):
    """A group whose commands are the table's, and whose end is always one line and one code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if entry.needs_linux and sys.platform != "linux":
            raise UsageError(
                f"etcsched {cmd_name}: schedulers and agents need Linux; "
                "what looks at a cluster or changes it works from here too"
            )
        module, _, name = entry.place.partition(":")
        command: click.Command = getattr(import_module(f"etcsched_cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else "see etcsched --help"
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Ends the process, in the one way for every error (exit codes: ``core.errors``)."""
        _open_what_is_closed()
        extra["standalone_mode"] = False
        extra["complete_var"] = "_ETCSCHED_COMPLETE"
        # gRPC's own log would stand between our lines; what matters comes back as errors.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        arguments = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in arguments
        try:
            _check_text(arguments)
            code = super().main(arguments, *rest, **extra)
        except EtcschedError as error:
            if debug:
                raise
            _say(str(error))
            sys.exit(error.exit_code)
        except click.ClickException as error:
            if isinstance(error, NoArgsIsHelpError):
                error.show()
            else:
                _say(_in_a_line(error))
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except OSError as error:
            # A full disk behind the output, a file that has become unreadable: no bug of ours.
            if debug:
                raise
            _say(f"{error.filename or 'output'}: {error.strerror or error}")
            sys.exit(1)
        except Exception as error:
            if debug:
                raise
            _say(f"bug: {type(error).__name__}: {error}; run it again with --debug for details")
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def _check_text(arguments: Sequence[str]) -> None:
    """What is given ends up in etcd or before people, who both take text only."""
    for argument in arguments:
        if not is_text(argument):
            raise UsageError(f"{argument!a} isn't text in UTF-8")
    for name, value in os.environ.items():
        if name.startswith("ETCSCHED_") and not is_text(value):
            raise UsageError(f"{name} isn't text in UTF-8")


def _in_a_line(error: click.ClickException) -> str:
    """As all errors are said: click's own words, and what to do."""
    text = " ".join(error.format_message().split()).rstrip(".")
    text = text.replace(". Did you mean", "; did you mean").replace(
        ". (Did you mean", " (did you mean"
    )
    said = text[:1].lower() + text[1:]
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    if ctx is None or said.endswith("?") or " --help" in said:
        return said
    return f"{said}; see {ctx.command_path} --help"


def _open_what_is_closed() -> None:
    """A shell's ``>&-``: Python has None for such a stream, which nobody expects."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - as long as the process


def _say(text: str) -> None:
    click.echo(f"etcsched: {text}" if "\n" not in text else text, err=True)


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="These options can also be set by the environment, ETCSCHED_ENDPOINTS say, and in the "
    "configuration file. Exit codes: 0 done, 1 failed, 2 usage, 3 cluster out of reach, 4 not "
    "found, 5 refused.",
)
@option(
    "--config",
    metavar="FILE",
    is_eager=True,
    callback=choose_file,
    help="Configuration file.  [default: ~/.config/etcsched/config.yaml]",
)
@option(
    "--context",
    metavar="NAME",
    is_eager=True,
    callback=choose_context,
    shell_complete=complete_context,
    help="Which of the clusters that the configuration file names.",
)
@option(
    "--endpoints",
    metavar="HOST:PORT,...",
    default="127.0.0.1:2379",
    show_default=True,
    help="Where etcd is; https:// in front for TLS.",
)
@option(
    "--prefix",
    default="/etcsched/v1/",
    show_default=True,
    help="Where our keys are.",
)
@option(
    "--cacert",
    metavar="FILE",
    help="CA that the servers' certificates are from (PEM).",
)
@option("--cert", metavar="FILE", help="This client's certificate (PEM).")
@option("--key", metavar="FILE", help="This client's key (PEM).")
@option(
    "--user",
    metavar="NAME[:PASSWORD]",
    help="User of etcd; its password is better given in ETCSCHED_PASSWORD, or when asked.",
)
@option(
    "--timeout",
    metavar="DURATION",
    default="5s",
    show_default=True,
    help="How long to wait for etcd's and the leader's answers.",
)
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.version_option(package_name="etcsched", message="etcsched %(version)s")
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """A job scheduler for work that must happen, on etcd.

    \b
    etcsched apply jobs/           make the cluster run what the files say
    etcsched jobs list             what there is, what is next, how it went
    etcsched runs show JOB/ID      one run, all its attempts
    etcsched status --watch        everything at a glance
    """
    ctx.obj = Settings.of(ctx, options)


def main() -> NoReturn:
    cli.main()
