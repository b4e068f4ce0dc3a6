"""The etcd client of one command: ``--timeout`` is how long it waits, unless a call says more."""

from __future__ import annotations

from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.ops import Range, RangeResult, Txn, TxnResult

__all__ = ["PatientClient"]


class PatientClient(EtcdClient):
    def __init__(self, config: EtcdConfig, timeout_s: float) -> None:
        super().__init__(config)
        self._timeout_s = timeout_s

    async def txn(self, txn: Txn, *, timeout_s: float | None = None) -> TxnResult:
        return await super().txn(txn, timeout_s=timeout_s or self._timeout_s)

    async def range(self, request: Range, *, timeout_s: float | None = None) -> RangeResult:
        return await super().range(request, timeout_s=timeout_s or self._timeout_s)
