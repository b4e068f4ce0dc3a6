"""The agent's process: everything that happens goes through one inbox into the machine, and what
the machine wants goes out to etcd, the supervisor and the disk.

Imported only once the supervisor runs (``run``), since it makes gRPC objects.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, assert_never

from etcsched import __version__
from etcsched.agent.config import AgentConfig, base_environment, own_user
from etcsched.agent.output_files import prune_output
from etcsched.agent.presence import PresenceKeeper
from etcsched.agent.spool import Spool
from etcsched.agent.state_dir import SavedSession, StateDir
from etcsched.agent.supervised import Supervised
from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.agent.attempt import parse_attempt_id, report_id
from etcsched.core.agent.machine import AgentMachine
from etcsched.core.agent.standing import Settings
from etcsched.core.clock import Instant
from etcsched.core.errors import (
    AgentIdInUse,
    ClusterRestored,
    ClusterUnreachable,
    EtcschedError,
    LeaseGone,
    OutcomeUnknown,
)
from etcsched.core.records import Change, Kind, Report
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.session import Session, SessionLoss, boottime_s
from etcsched.etcd.versions import check_server
from etcsched.etcd.writer import Committed, Refused, Rejected, Writer, WriteResult
from etcsched.keyspace.codec import MalformedRecord, change_of, change_of_event, decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, Range, RangeResult, WatchEvent
from etcsched.keyspace.transactions import AgentGuard, AgentTransactions
from etcsched.ports import Snapshot, WatchUpdate

log = logging.getLogger(__name__)

_TICK_S = 0.2
_REVISION_EVERY_S = 5.0
_PRUNE_EVERY_S = 600.0
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MOST_S = 5.0
_REVOKE_S = 3.0


class Ending(enum.Enum):
    QUIT = "quit"
    REEXEC = "reexec"
