"""From start to end: outcomes, failures to start, output, timeouts, whole trees."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from etcsched.agent.supervisor.kernel import boottime_s
from etcsched.agent.supervisor.messages import RESULTS_MAX_BYTES, Ended, EndReason
from tests.integration.supervisor.host import Host, dead_within, is_alive

STUBBORN = "trap '' TERM; echo $$ > $PHONE; while :; do sleep 1000; done"


async def test_an_exit_code_times_and_output_are_reported(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("a", "cat; echo one; echo two >&2; echo three; exit 7", env={"PATH": "/bin"})
        started = await agent.started("a")
        ended = await agent.ended("a")
        assert (ended.reason, ended.exit_code, ended.signal) == (EndReason.EXITED, 7, None)
        assert ended.tail == "one\ntwo\nthree\n"
        assert (ended.output_bytes, ended.output_truncated) == (14, False)
        assert (host.directory / "output/a").read_text() == "one\ntwo\nthree\n"
        assert started.started_ms == ended.started_ms <= ended.ended_ms
        assert ended.cpu_s > 0
        assert ended.peak_memory_bytes > 100_000


async def test_a_command_that_says_nothing_leaves_no_file(host: Host) -> None:
    async with host.agent() as agent:
        agent.start("a", "true")
        assert (await agent.ended("a")).exit_code == 0
        assert not (host.directory / "output").exists()


async def test_cpu_and_memory_of_children_count(host: Host) -> None:
    busy = "x = bytearray(80_000_000); sum(range(3_000_000))"
    async with host.agent() as agent:
        agent.start("a", "sh", "-c", f"{sys.executable} -c '{busy}'; exit 0")
        ended = await agent.ended("a")
        assert ended.cpu_s > 0.02
        assert 80_000_000 < ended.peak_memory_bytes < 400_000_000


async def test_a_signal_is_not_an_exit_code(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("a", "kill -SEGV $$")
        ended = await agent.ended("a")
        assert (ended.reason, ended.exit_code) == (EndReason.SIGNALED, None)
        assert ended.signal == signal.SIGSEGV


async def test_jobs_start_with_default_signals_and_few_descriptors(either_way: Host) -> None:
    async with either_way.agent() as agent:
        agent.start("a", "grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")
        lines = (await agent.ended("a")).tail.splitlines()
        numbers = {line.split()[0]: int(line.split()[1], 16) for line in lines}
        libc_internal = 0b11 << 31  # 32 and 33: glibc's own, which posix_spawn leaves ignored
        assert numbers["SigIgn:"] & ~libc_internal == 0
        assert numbers["SigBlk:"] == 0
        agent.shell("b", "ls /proc/$$/fd")
        assert (await agent.ended("b")).tail.split() == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"argv": ("no-such-command",)}, "command not found: no-such-command"),
        ({"argv": ("/no/such/command",)}, "command not found: /no/such/command"),
        ({"argv": ("/etc/passwd",)}, "permission denied: /etc/passwd"),
        ({"argv": ()}, "the command is empty"),
        ({"cwd": "/no/such/directory"}, "working directory doesn't exist: /no/such/directory"),
        ({"cwd": "/etc/hostname"}, "working directory is not a directory: /etc/hostname"),
        ({"user": "no-such-user"}, "no such user on this host: 'no-such-user'"),
        ({"argv": ("echo", "x" * 200_000)}, "arguments and environment are too long"),
        ({"argv": ("echo", "a\0b")}, "embedded null"),
        ({"argv": ("a\0b",)}, "command not found"),
        ({"cwd": "a\0b"}, "embedded null"),
        ({"user": "a\0b"}, "no such user"),
        ({"env": {"A=B": "c", "PATH": "/bin"}}, "illegal environment variable name"),
        ({"deadline_mono_s": 1.0}, "deadline had passed"),
    ],
)
async def test_what_cannot_start_says_why_in_one_line(
    either_way: Host, changes: dict[str, object], reason: str
) -> None:
    async with either_way.agent() as agent:
        agent.start("a", "true", **changes)
        failed = await agent.start_failed("a")
        assert reason in failed.reason
        assert "\n" not in failed.reason
        agent.client.acknowledge("a")
        agent.start("b", "true")
        await agent.started("b")


@pytest.mark.parametrize(
    ("changes", "declined"),
    [({"user": "no-such-user"}, True), ({"argv": ("/no/such/command",)}, False)],
)
async def test_only_what_its_user_keeps_from_starting_is_declined(
    either_way: Host, changes: dict[str, object], declined: bool
) -> None:
    async with either_way.agent() as agent:
        agent.start("a", "true", **changes)
        failed = await agent.start_failed("a")
        assert (failed.declined, failed.died) == (declined, False)


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        ("#!/no/such/interpreter\n", 0o755, "interpreter"),
        ("echo no first line\n", 0o755, "not a program"),
        ("#!/bin/sh\n", 0o644, "permission denied"),
    ],
)
async def test_a_script_that_cannot_run_says_why(
    either_way: Host, content: str, mode: int, reason: str
) -> None:
    script = either_way.directory / "script"
    script.write_text(content)
    script.chmod(mode)
    async with either_way.agent() as agent:
        agent.start("a", str(script))
        assert reason in (await agent.start_failed("a")).reason
        agent.start("b", "script", env={"PATH": f"/nowhere:{either_way.directory}"})
        assert reason in (await agent.start_failed("b")).reason


async def test_a_start_that_is_repeated_runs_once(host: Host) -> None:
    async with host.agent() as agent:
        script = "echo $$ > $PHONE; until [ -e go ]; do sleep 0.01; done"
        start = agent.shell("a", script, cwd=str(host.directory))
        started = await agent.started("a")
        assert await host.phone.pid() == started.pid
        agent.client.start(start)
        assert await agent.started("a") == started
        (host.directory / "go").touch()
        ended = await agent.ended("a")
        agent.client.start(start)
        assert await agent.next_event() == ended


# Output


async def test_a_flood_stays_within_its_cap_and_ends_with_its_end(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell(
            "a", "head -c 50000000 /dev/zero | tr '\\0' x; echo last words", output_cap_bytes=20_000
        )
        ended = await agent.ended("a")
        assert (ended.exit_code, ended.output_truncated) == (0, True)
        assert ended.output_bytes == 50_000_000 + len("last words\n")
        assert ended.tail.endswith("xxxlast words\n")
        kept = (host.directory / "output/a").read_text()
        assert len(kept) == 20_000
        assert "output cut here; it had 50000011 bytes" in kept
        assert kept.endswith("last words\n")


async def test_an_endless_flood_delays_nobody_and_can_be_cancelled(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("flood", "echo; echo > $PHONE; exec yes", output_cap_bytes=10_000)
        await agent.started("flood")
        await host.phone.line()  # Something was written, so there will be a file.
        agent.start("a", "true")
        await agent.ended("a")
        agent.client.kill("flood", EndReason.CANCELLED, grace_s=5.0)
        assert (await agent.ended("flood")).reason is EndReason.CANCELLED
        assert (host.directory / "output/flood").stat().st_size <= 10_000


async def test_a_full_disk_changes_no_outcome(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("a", "echo one && echo two", output_path="/dev/full")
        ended = await agent.ended("a")
        assert (ended.exit_code, ended.tail) == (0, "one\ntwo\n")
        assert ended.output_truncated
        for name, path in (("b", "/proc/no/such/place"), ("c", ""), ("d", "a\0b")):
            agent.shell(name, "echo one", output_path=path)
            assert (await agent.ended(name)).tail == "one\n"


async def test_an_output_file_is_never_written_through_a_link(host: Host) -> None:
    target = host.directory / "target"
    (host.directory / "link").symlink_to(target)
    async with host.agent() as agent:
        agent.shell("a", "echo one", output_path=str(host.directory / "link"))
        assert (await agent.ended("a")).output_truncated
        assert not target.exists()


async def test_output_that_is_no_text_is_reported_as_text(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("a", r"printf 'a\377b'")
        assert (await agent.ended("a")).tail == "a�b"


# Timeouts, cancellation, trees


async def test_a_timeout_asks_first(host: Host) -> None:
    script = "trap 'echo asked; exit 3' TERM; while :; do sleep 0.01; done"
    async with host.agent() as agent:
        agent.shell("a", script, timeout_s=2.0)
        ended = await agent.ended("a")
        assert (ended.reason, ended.exit_code) == (EndReason.TIMED_OUT, 3)
        assert "asked" in ended.tail
        assert 2000 <= ended.ended_ms - ended.started_ms < 5000


async def test_a_timeout_kills_what_does_not_listen(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("a", STUBBORN, timeout_s=2.0, kill_grace_s=0.2)
        ended = await agent.ended("a")
        assert (ended.reason, ended.signal) == (EndReason.TIMED_OUT, signal.SIGKILL)
        assert 2190 <= ended.ended_ms - ended.started_ms < 5000


async def test_the_first_reason_stands(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("a", STUBBORN)
        await host.phone.pid()
        agent.client.kill("a", EndReason.CANCELLED, grace_s=60.0)
        agent.client.kill("a", EndReason.TIMED_OUT, grace_s=0.0)
        assert (await agent.ended("a")).reason is EndReason.CANCELLED


async def test_a_stopped_process_can_be_cancelled_gently(host: Host) -> None:
    script = "trap 'exit 3' TERM; echo $$ > $PHONE; kill -STOP $$; while :; do sleep 0.01; done"
    async with host.agent() as agent:
        agent.shell("a", script)
        await host.phone.pid()
        agent.client.kill("a", EndReason.CANCELLED, grace_s=10.0)
        assert (await agent.ended("a")).exit_code == 3


ESCAPES = {
    "child": f"sh -c '{STUBBORN.replace(chr(39), chr(34))}' & wait",
    "session": f"setsid sh -c '{STUBBORN.replace(chr(39), chr(34))}' & wait",
    "daemon": f"(setsid sh -c '{STUBBORN.replace(chr(39), chr(34))}' &) ; sleep 1000",
    "without environment": (
        f"(setsid env -i PHONE=$PHONE sh -c '{STUBBORN.replace(chr(39), chr(34))}' &) ; sleep 1000"
    ),
}


@pytest.mark.parametrize("escape", ESCAPES)
async def test_a_cancelled_attempt_has_ended_when_its_whole_tree_is_dead(
    host: Host, escape: str
) -> None:
    async with host.agent() as agent:
        agent.shell("a", ESCAPES[escape], kill_grace_s=0.1)
        escaped = await host.phone.pid()
        agent.client.kill("a", EndReason.CANCELLED, grace_s=0.1)
        assert (await agent.ended("a")).reason is EndReason.CANCELLED
        assert not is_alive(escaped)


@pytest.mark.parametrize("escape", ["session", "daemon", "without environment"])
async def test_what_outlives_the_main_process_is_stopped_with_it(host: Host, escape: str) -> None:
    script = ESCAPES[escape].replace("sleep 1000\n", "").removesuffix("wait")
    script = script.removesuffix("sleep 1000") + f"\nuntil [ -e {host.directory}/go ]; do :; done"
    async with host.agent() as agent:
        agent.shell("a", script + "; exit 4", kill_grace_s=0.1)
        escaped = await host.phone.pid()
        (host.directory / "go").touch()
        ended = await agent.ended("a")
        assert (ended.reason, ended.exit_code) == (EndReason.EXITED, 4)
        assert not is_alive(escaped)


async def test_one_attempts_end_spares_the_daemons_of_another(host: Host) -> None:
    daemon = "(setsid sh -c 'echo $$ > $PHONE; exec sleep 1000' &) ; exec sleep 1000"
    async with host.agent() as agent:
        agent.shell("long", daemon)
        pid = await host.phone.pid()
        agent.shell("short", "(setsid sleep 1000 &) ; exit 0")
        assert (await agent.ended("short")).exit_code == 0
        assert is_alive(pid)
        agent.client.kill("long", EndReason.CANCELLED, grace_s=1.0)
        await agent.ended("long")
        assert not is_alive(pid)


async def test_a_process_that_keeps_forking_away_is_caught(host: Host) -> None:
    runaway = (
        "import os, sys\n"
        "os.setsid() if os.fork() == 0 else sys.exit()\n"
        "while True:\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.setsid()\n"
    )
    async with host.agent() as agent:
        agent.start("a", sys.executable, "-c", runaway, kill_grace_s=0.05)
        assert (await agent.ended("a")).exit_code == 0
        assert (
            not Path(f"/proc/{agent.supervisor_pid()}/task/{agent.supervisor_pid()}")
            .joinpath("children")
            .read_text()
        )


async def test_someone_who_keeps_the_output_open_delays_no_end(host: Host) -> None:
    """The descriptor of the pipe, handed to a process that isn't the attempt's."""
    async with host.agent() as agent:
        agent.shell("a", "echo $$ > $PHONE; until [ -e go ]; do :; done", cwd=str(host.directory))
        pid = await host.phone.pid()
        held = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
        try:
            (host.directory / "go").touch()
            assert (await agent.ended("a")).exit_code == 0
        finally:
            os.close(held)


# Users


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_a_command_runs_as_the_user_it_names(either_way: Host) -> None:
    either_way.let_others_through()
    results = either_way.directory / "results"
    script = "id -un; id -Gn; echo $HOME $USER $LOGNAME; echo x=1 > $RESULTS; umask"
    async with either_way.agent() as agent:
        agent.shell(
            "a",
            script,
            user="nobody",
            results_path=str(results),
            env={"PATH": "/bin:/usr/bin", "RESULTS": str(results), "USER": "kept"},
        )
        ended = await agent.ended("a")
        lines = ended.tail.splitlines()
        assert lines[:3] == ["nobody", "nogroup", "/nonexistent kept nobody"]
        assert results.read_text() == "x=1\n"
        assert results.stat().st_mode & 0o777 == 0o600
        assert results.stat().st_uid == 65534
        agent.shell("b", "true", user="nobody", results_path=str(results))
        assert "results file" in (await agent.start_failed("b")).reason
        agent.start("c", "/no/such", user="nobody")
        assert (await agent.start_failed("c")).reason == "command not found: /no/such"
        agent.shell("d", STUBBORN, user="nobody")
        pid = await either_way.phone.pid()
        agent.client.kill("d", EndReason.CANCELLED, grace_s=0.0)
        assert (await agent.ended("d")).reason is EndReason.CANCELLED
        assert await dead_within(pid, 1.0)


async def test_results_are_what_an_ordinary_file_holds_at_the_end(host: Host) -> None:
    writes = {
        "ordinary": "printf 'x=1\\ny=2\\n' > $RESULTS",
        "long": f"head -c {RESULTS_MAX_BYTES + 1} /dev/zero > $RESULTS",
        "link": "ln -s /etc/hostname $RESULTS",
        "pipe": "mkfifo $RESULTS",
        "none": "true",
    }
    found: dict[str, Ended] = {}
    async with host.agent() as agent:
        for name, script in writes.items():
            path = str(host.directory / f"{name}.results")
            env = {"PATH": "/bin:/usr/bin", "RESULTS": path}
            agent.shell(name, script, results_path=path, env=env)
            found[name] = await agent.ended(name)
    assert (found["ordinary"].results, found["ordinary"].results_cut) == (b"x=1\ny=2\n", False)
    assert (len(found["long"].results), found["long"].results_cut) == (RESULTS_MAX_BYTES, True)
    assert {found[name].results for name in ("link", "pipe", "none")} == {b""}


async def test_many_at_once_all_end(host: Host) -> None:
    async with host.agent() as agent:
        ids = {f"a{i}" for i in range(150)}
        for attempt_id in ids:
            agent.shell(attempt_id, "echo hello", deadline_mono_s=boottime_s() + 60)
        tails: dict[str, str] = {}
        while len(tails) < len(ids):
            event = await agent.next_event()
            if isinstance(event, Ended):
                tails[event.attempt_id] = event.tail
        assert tails == dict.fromkeys(ids, "hello\n")


@pytest.mark.parametrize("may_hang", [False, True], ids=["spawned", "forked"])
async def test_a_command_gets_the_limit_of_open_files_that_its_supervisor_had(
    host: Host, may_hang: bool
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        host.start_as_if_mounts(may_hang=may_hang)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    async with host.agent() as agent:
        supervisor = agent.supervisor_pid()
        assert resource.prlimit(supervisor, resource.RLIMIT_NOFILE) == (min(hard, 1 << 20), hard)
        agent.shell("a", "ulimit -Sn; ulimit -Hn")
        assert (await agent.ended("a")).tail.split() == ["200", str(hard)]


def start_with_descriptors(host: Host) -> None:
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (34, 34)); "
        "from etcsched.agent.supervisor.__main__ import main; sys.exit(main())"
    )
    places = ("--dir", str(host.directory), "--socket", str(host.socket))
    subprocess.run((sys.executable, "-c", script, *places), check=True, timeout=15)


async def test_nothing_starts_that_would_leave_too_few_descriptors(host: Host) -> None:
    start_with_descriptors(host)
    async with host.agent() as agent:
        agent.shell("a", STUBBORN)
        await agent.started("a")
        agent.shell("b", "true")
        assert "enough for 1 attempts at once" in (await agent.start_failed("b")).reason


async def test_what_a_supervisor_that_shuts_down_is_given_has_died(host: Host) -> None:
    """Elsewhere it would start: it is no failure of its own."""
    script = "trap 'echo > $PHONE' TERM; echo > $PHONE; while :; do sleep 0.01; done"
    async with host.agent() as agent:
        agent.shell("a", script)
        await agent.started("a")
        await host.phone.line()
        os.kill(agent.supervisor_pid(), signal.SIGTERM)
        await agent.closing()
        await host.phone.line()
        agent.shell("b", "true")
        failed = await agent.start_failed("b")
        assert "shutting down" in failed.reason
        assert failed.died


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs jobs of other users")
async def test_a_results_file_that_cant_be_made_changes_no_outcome_of_another_users_command(
    host: Host,
) -> None:
    """As on a full disk: a file stands where its directory would be."""
    host.let_others_through()
    (host.directory / "output").mkdir()
    (host.directory / "output" / "job").write_text("")
    path = host.directory / "output" / "job" / "run" / "1"
    paths = {"output_path": f"{path}.log", "results_path": f"{path}.results"}
    async with host.agent() as agent:
        agent.shell("own", "exit 0", **paths)
        assert (await agent.ended("own")).exit_code == 0
        agent.shell("other", "exit 0", user="nobody", **paths)
        assert (await agent.ended("other")).exit_code == 0
