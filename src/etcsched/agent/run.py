"""Running an agent in the foreground. Imports nothing of gRPC before the supervisor runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import uvloop

from etcsched.agent.config import AgentConfig
from etcsched.agent.heard_signals import HeardSignals, keep_signals
from etcsched.agent.state_dir import StateDir
from etcsched.agent.supervisor_client import start_supervisor
from etcsched.core.errors import EtcschedError
from etcsched.etcd.config import EtcdConfig

if TYPE_CHECKING:
    from etcsched.agent.node import Ending


def run_agent(config: AgentConfig, etcd_config: EtcdConfig) -> None:
    """Until SIGTERM or SIGINT (then what runs may end, for ``stop_timeout_s``; a second one kills
    it). SIGHUP: the program is executed anew with the same arguments, and takes its processes
    and session back.

    Raises what no waiting can mend (``EtcschedError``, with its exit code); etcd being away
    isn't that.
    """
    # Until there is somebody to hear it, a stop is kept: it mustn't leave a supervisor behind.
    keep_signals()
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
        ending = uvloop.run(_run(config, etcd_config, state))
    finally:
        state.unlock()
    if ending.value == "reexec":
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


async def _run(config: AgentConfig, etcd_config: EtcdConfig, state: StateDir) -> Ending:
    from etcsched.agent.node import AgentNode
    from etcsched.agent.output_service import serve_output

    loop = asyncio.get_running_loop()
    async with serve_output(config, etcd_config, state) as output:
        node = AgentNode(config, etcd_config, state, output)
        with HeardSignals(lambda number: loop.call_soon_threadsafe(node.signalled, number)):
            ending = await node.run()
    await asyncio.sleep(0)  # The loop still has to tell the last of them.
    if node.is_stopped_as_it_restarts:
        # Too late for this program. Nobody takes it any more, so it waits for the next one.
        os.kill(os.getpid(), signal.SIGTERM)
    return ending
