"""Real etcd clusters for tests: started, secured, killed, frozen and restarted at will."""

from __future__ import annotations

import asyncio
import enum
import json
import os
import shutil
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from etcsched.core.errors import EtcschedError, OutcomeUnknown
from etcsched.etcd.binaries import EtcdBinary, probe_etcd
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.embedded import (
    EmbeddedEtcd,
    EtcdMember,
    EtcdOptions,
    MemberPorts,
    ServerTls,
    wait_healthy,
)
from etcsched.etcd.ports import HOST
from etcsched.keyspace.ops import Txn, TxnResult
from tests.support.certificates import CertificateAuthority
from tests.support.fetch_etcd import CHOICE_VARIABLE, local_etcds

ROOT_USER = "root"
ROOT_PASSWORD = "root-password"
CALL_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 30.0

# History is kept for ever: the recorder needs it from the first revision. Elections are quick.
TEST_OPTIONS = EtcdOptions(
    compaction_retention="0",
    heartbeat_ms=50,
    election_timeout_ms=500,
    fsync=False,
    # Each login of a command would take etcd 60 ms of processor time, so that passwords are safe.
    extra_arguments=("--bcrypt-cost=4",),
)


class Security(enum.Enum):
    PLAIN = "plain"
    TLS = "TLS"
    MUTUAL_TLS = "mutual TLS"


def etcd_versions() -> list[EtcdBinary]:
    """Every etcd that tests can run on, oldest first: the one on PATH and those that
    ``make test-etcds`` fetched, one of each version; only that of ETCSCHED_TEST_ETCD (a directory
    with an etcd in it) where it is set."""
    chosen = os.environ.get(CHOICE_VARIABLE)
    if chosen:
        binary = probe_etcd(Path(chosen, "etcd").absolute())
        if binary is None:
            raise EtcschedError(f"{CHOICE_VARIABLE}: no etcd that runs in {chosen}")
        return [binary]
    return local_etcds()


class _MovableEtcd(EmbeddedEtcd):
    def move(self, index: int) -> str:
        """The member that is started next has other ports, and joins the others there are. Its
        URL for those."""
        ports = MemberPorts(client=self._reserve_any(), peer=self._reserve_any())
        self._ports = (*self._ports[:index], ports, *self._ports[index + 1 :])
        arguments = [*self._arguments(index), "--initial-cluster-state=existing"]
        member = EtcdMember(
            self.binary, self._name(index), self.directory, arguments, self._reserve_any()
        )
        self._members = (*self._members[:index], member, *self._members[index + 1 :])
        return f"http://{HOST}:{ports.peer}"


class EtcdCluster:
    """One cluster of 1 or 3 members, with everything a client needs to get in."""

    def __init__(
        self,
        binary: EtcdBinary,
        directory: Path,
        *,
        members: int = 1,
        security: Security = Security.PLAIN,
        authentication: bool = False,
        options: EtcdOptions = TEST_OPTIONS,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.binary = binary
        self.security = security
        self.authentication = authentication
        self.authority: CertificateAuthority | None = None
        """Who signed the certificates; None for a plain cluster."""
        self.config_kwargs: dict[str, Any] = {}
        """For ``EtcdConfig``: how root gets in. ``endpoints`` is there from the start on."""
        self.on_fault: Callable[[str, str], None] = lambda _member, _proof: None
        """Told of each member that is killed or frozen, with the proof, and (empty) when it is
        healed."""
        tls = self._issue_certificates() if security is not Security.PLAIN else None
        self._etcd = _MovableEtcd(
            binary, directory / "etcd", members=members, options=options, tls=tls
        )

    @property
    def endpoints(self) -> tuple[str, ...]:
        scheme = "http" if self.security is Security.PLAIN else "https"
        return tuple(f"{scheme}://{endpoint}" for endpoint in self._etcd.endpoints)

    @property
    def members(self) -> tuple[EtcdMember, ...]:
        return self._etcd.members

    async def start(self) -> None:
        await self._etcd.start(READY_TIMEOUT_S)
        self.config_kwargs["endpoints"] = self.endpoints
        if self.authentication and "user" not in self.config_kwargs:
            await self._enable_authentication()

    async def stop(self) -> None:
        """End every member by force: what a test leaves behind is of no use."""
        self._etcd.kill()

    def kill(self, index: int) -> None:
        """SIGKILL; the process is gone on return."""
        self.members[index].kill()
        self.on_fault(f"etcd {index}", f"member {index} is gone")

    def freeze(self, index: int) -> None:
        """SIGSTOP; the process stands still on return."""
        self.members[index].signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.members[index].pid, os.WSTOPPED)
        self.on_fault(f"etcd {index}", f"member {index} is stopped")

    def thaw(self, index: int) -> None:
        """SIGCONT; the process runs on return, its cluster may not yet (``wait_healthy``)."""
        self.members[index].signal(signal.SIGCONT)
        self.on_fault(f"etcd {index}", "")

    async def restart(self, index: int) -> None:
        """Start a member again, after killing it if it runs, and wait until it serves."""
        self.kill(index)
        self.members[index].spawn()
        await wait_healthy([self.members[index]], READY_TIMEOUT_S)
        self.on_fault(f"etcd {index}", "")

    def replace_certificates(self) -> None:
        """In the files that there are, by those of a new authority. A member shows its own to
        whoever connects from now on, and takes clients' from its next start on."""
        self._issue_certificates()

    async def remove(self, index: int) -> None:
        """By the word of the others; whether its process runs is another matter."""
        by = (index + 1) % len(self.members)
        listed = await self.call("/v3/cluster/member/list", {}, member=by)
        name = self.members[index].name
        (id_,) = [member["ID"] for member in listed["members"] if member["name"] == name]
        await self.call("/v3/cluster/member/remove", {"ID": id_}, member=by)

    async def replace(self, index: int) -> None:
        """By a new member, at other addresses, on an empty disk; returns when it serves."""
        self.kill(index)
        await self.remove(index)
        shutil.rmtree(self.members[index].data_dir)
        peer_url = self._etcd.move(index)
        by = (index + 1) % len(self.members)
        await self.call("/v3/cluster/member/add", {"peerURLs": [peer_url]}, member=by)
        self.members[index].spawn()
        await wait_healthy([self.members[index]], READY_TIMEOUT_S)

    async def wait_healthy(self, *indexes: int) -> None:
        """Until these members, or all, serve linearizable reads."""
        chosen = [self.members[index] for index in indexes] if indexes else self.members
        await wait_healthy(chosen, READY_TIMEOUT_S)

    async def leader(self) -> int:
        """Index of the member that now leads, by the word of a member that answers."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            for index, member in enumerate(self.members):
                if not member.pid:
                    continue
                try:
                    status = await self.call("/v3/maintenance/status", {}, member=index)
                except (OSError, TimeoutError):
                    continue
                if status.get("leader") == status["header"]["member_id"]:
                    return index
            await asyncio.sleep(0.02)
        raise TimeoutError(f"no leader within {READY_TIMEOUT_S:.0f} s")

    async def call(self, path: str, body: dict[str, Any], *, member: int = 0) -> dict[str, Any]:
        """One call of etcd's HTTP gateway, as root; a refusal raises ``urllib.error.HTTPError``."""
        return await asyncio.to_thread(self._call, path, body, member)

    def _call(self, path: str, body: dict[str, Any], member: int) -> dict[str, Any]:
        headers = {}
        if "user" in self.config_kwargs:
            credentials = {"name": ROOT_USER, "password": ROOT_PASSWORD}
            answer = self._post("/v3/auth/authenticate", credentials, {}, member)
            headers["Authorization"] = answer["token"]
        return self._post(path, body, headers, member)

    def _post(
        self, path: str, body: dict[str, Any], headers: dict[str, str], member: int
    ) -> dict[str, Any]:
        request = urllib.request.Request(
            self.endpoints[member] + path, json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(
            request, timeout=CALL_TIMEOUT_S, context=self._ssl_context()
        ) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def _ssl_context(self) -> ssl.SSLContext | None:
        if self.authority is None:
            return None
        context = ssl.create_default_context(cafile=str(self.authority.cert))
        if self.security is Security.MUTUAL_TLS:
            context.load_cert_chain(*self._server_pair)
        return context

    def _issue_certificates(self) -> ServerTls:
        self.authority = CertificateAuthority(self._directory)
        self._server_pair = cert, key = self.authority.issue_server()
        self.config_kwargs["ca_cert"] = self.authority.cert
        if self.security is Security.TLS:
            return ServerTls(cert=cert, key=key)
        self.config_kwargs["cert"], self.config_kwargs["key"] = self.authority.issue_client(
            ROOT_USER
        )
        return ServerTls(cert=cert, key=key, client_ca=self.authority.cert)

    async def _enable_authentication(self) -> None:
        await self.call("/v3/auth/user/add", {"name": ROOT_USER, "password": ROOT_PASSWORD})
        await self.call("/v3/auth/role/add", {"name": ROOT_USER})
        await self.call("/v3/auth/user/grant", {"user": ROOT_USER, "role": ROOT_USER})
        await self.call("/v3/auth/enable", {})
        self.config_kwargs |= {"user": ROOT_USER, "password": ROOT_PASSWORD}


async def certainly(client: EtcdClient, txn: Txn) -> TxnResult:
    """Again while its outcome is unknown: as members are lost, no write is sure to be answered."""
    while True:
        try:
            return await client.txn(txn)
        except OutcomeUnknown:
            continue


class SharedEtcd(msgspec.Struct, frozen=True):
    """The session's cluster as one test sees it: only keys under ``prefix`` (which ends with a
    slash) are its own. Whoever breaks a cluster, compacts it or counts its revisions takes one
    of their own."""

    cluster: EtcdCluster
    prefix: str

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self.cluster.endpoints

    @property
    def config_kwargs(self) -> dict[str, Any]:
        return self.cluster.config_kwargs
