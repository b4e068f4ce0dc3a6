"""Running an agent in the foreground. Imports nothing of gRPC before the supervisor runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import uvloop

from etcsched.agent.config import AgentConfig
from etcsched.agent.state_dir import StateDir
from etcsched.agent.supervisor_client import start_supervisor
from etcsched.core.errors import EtcschedError
from etcsched.etcd.config import EtcdConfig

if TYPE_CHECKING:
    from etcsched.agent.node import Ending

_STOPS = (signal.SIGTERM, signal.SIGINT)


def run_agent(config: AgentConfig, etcd_config: EtcdConfig) -> None:
    """Until SIGTERM or SIGINT (then what runs may end, for ``stop_timeout_s``; a second one kills
    it). SIGHUP: the program is executed anew with the same arguments, and takes its processes
    and session back.

    Raises what no waiting can mend (``EtcschedError``, with its exit code); etcd being away
    isn't that.
    """
    # Until there is somebody to hear it, a stop is kept: it mustn't leave a supervisor behind.
    stops: list[int] = []
    _keep_stops(stops)
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)
    # They may be blocked since before this program was replaced by itself: see below. Whoever asked
    # for another start meanwhile has got it. What is started from here on gets them as usual.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, *_STOPS})
    # gRPC ends its threads before a fork and starts them again after it. Where the host's limit of
    # processes is reached it can't, and hangs for ever; we only fork to execute.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    state = StateDir(config.directory)
    try:
        state.lock()
        start_supervisor(
            state.supervisor,
            state.socket,
            isolate=config.isolate,
            use_cgroup=config.use_cgroup,
        )
    except OSError as error:  # It is full, say, or read-only.
        state.unlock()
        why = error.strerror or str(error)
        raise EtcschedError(f"state directory {config.directory}: {why}") from error
    try:
        ending = uvloop.run(_run(config, etcd_config, state, stops))
    finally:
        state.unlock()
    if ending.value == "reexec":
        sys.stdout.flush()
        sys.stderr.flush()
        if stops:
            # Blocked in this thread, it waits there for the new program.
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _keep_stops(stops: list[int]) -> None:
    """Those that come from here on, until somebody else handles them."""
    for number in _STOPS:
        signal.signal(number, lambda came, _frame: stops.append(came))


async def _run(
    config: AgentConfig, etcd_config: EtcdConfig, state: StateDir, stops: list[int]
) -> Ending:
    """``stops``: those that came before; on return, those that only the next program can heed."""
    from etcsched.agent.node import AgentNode
    from etcsched.agent.output_service import serve_output

    async with serve_output(config, etcd_config, state) as output:
        node = AgentNode(config, etcd_config, state, output)
        ending = await node.run(stops)
    if ending.value == "reexec":
        # From the end of the loop to the new program's own handlers one would kill it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, *_STOPS})
        # What came before is told by the loop, in its next turn.
        for _ in range(2):
            await asyncio.sleep(0)
        stops[:] = [signal.SIGTERM] * node.is_stopped_as_it_restarts
        _keep_stops(stops)  # Other threads still get them.
    return ending
