"""``python -m tests.integration.agent.agent_main <config> <etcd config>``: an agent, settings as
JSON."""

from __future__ import annotations

import logging
import sys
from typing import TypeVar

import msgspec

from etcsched.agent.config import AgentConfig
from etcsched.agent.run import run_agent
from etcsched.core.errors import EtcschedError
from etcsched.etcd.config import EtcdConfig

T = TypeVar("T")


def read(type_: type[T], text: str) -> T:
    return msgspec.json.decode(text, type=type_, dec_hook=lambda kind, value: kind(value))


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        run_agent(
            read(AgentConfig, sys.argv[1]),
            read(EtcdConfig, sys.argv[2]),
        )
    except EtcschedError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
