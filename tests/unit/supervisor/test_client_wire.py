from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from etcsched.agent.supervisor.messages import DeadlineMoved, Ended, EndReason, encode_frame
from etcsched.agent.supervisor_client import _Wire

ENDED = Ended(attempt_id="a", reason=EndReason.EXITED, started_ms=1, ended_ms=2, exit_code=0)


async def test_what_a_supervisor_told_before_it_ended_is_heard(tmp_path: Path) -> None:
    """Though the next that is sent to it fails, before that is read."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_unix_connection(_Wire, str(tmp_path / "socket"))
        supervisor, _ = listener.accept()
        supervisor.sendall(encode_frame(DeadlineMoved(sequence=0)) + encode_frame(ENDED))
        supervisor.close()
        wire.move_deadline(1.0, {})
        async with asyncio.timeout(5):
            assert await wire.next_report() == ENDED
            assert await wire.next_report() is None
        assert wire._watch is None
        await wire.close()
