"""Which transactions etcd refuses for their form alone, before it looks at any data.

After etcd's api/v3rpc/key.go (``checkTxnRequest``, ``checkIntervals``); tests/contract holds this
to real servers.
"""

from __future__ import annotations

from collections.abc import Iterator

from etcsched.core.errors import InvalidTransaction
from etcsched.keyspace.ops import Compare, Delete, Operation, Put, Range, Txn

__all__ = ["MAX_REQUEST_BYTES", "MAX_TXN_OPS", "check_form", "in_range"]

MAX_TXN_OPS = 128
MAX_REQUEST_BYTES = 1536 * 1024
ALL_FROM_KEY = "\0"
# What etcd wraps around a request in its log: a header with the request's id.
_ENVELOPE_BYTES = 24
_MOST_FRAME_BYTES = 64
"""Of one part, besides its key and value: tags, lengths and numbers."""


def check_form(
    txn: Txn, max_txn_ops: int = MAX_TXN_OPS, max_request_bytes: int = MAX_REQUEST_BYTES
) -> None:
    """Raise ``InvalidTransaction``, or return."""
    _check_operations(txn, max_txn_ops)
    for branch in (txn.then, txn.otherwise):
        _check_keys(branch)
    if (
        _at_most_bytes(txn) + _ENVELOPE_BYTES > max_request_bytes
        and _writes(txn)
        and _txn_bytes(txn) + _ENVELOPE_BYTES > max_request_bytes
    ):
        raise InvalidTransaction("request is too large")


def in_range(key: str, start: str, end: str | None) -> bool:
    """As etcd reads a range: no end is the single key, an end of NUL everything from start on."""
    if not end:
        return key == start
    return start <= key and (end == ALL_FROM_KEY or key < end)


def _check_operations(txn: Txn, budget: int) -> None:
    """A transaction takes from the budget as much as its longest list, for all that it nests."""
    taken = max(len(txn.compares), len(txn.then), len(txn.otherwise))
    if taken > budget:
        raise InvalidTransaction("too many operations in txn request")
    for compare in txn.compares:
        if not compare.key:
            raise InvalidTransaction("key is not provided")
    for operation in (*txn.then, *txn.otherwise):
        if isinstance(operation, Txn):
            _check_operations(operation, budget - taken)
        elif not operation.key:
            raise InvalidTransaction("key is not provided")


def _check_keys(branch: tuple[Operation, ...]) -> tuple[set[str], list[Delete]]:
    """No key may be put twice, or put after it is deleted; the plain operations of a branch count
    as simultaneous, and its nested transactions as before all puts and after all deletes.

    The two branches of one nested transaction may put the same key, and one may put what the other
    deletes. Returns the keys put and the ranges deleted.
    """
    puts: set[str] = set()
    if not branch:
        return puts, []
    deletes = [operation for operation in branch if isinstance(operation, Delete)]
    for operation in branch:
        if isinstance(operation, Txn):
            puts_then, deletes_then = _check_keys(operation.then)
            puts_else, deletes_else = _check_keys(operation.otherwise)
            for key in puts_then | puts_else:
                _refuse_second(key, puts, deletes)
            puts |= puts_then | puts_else
            deletes += deletes_then + deletes_else
    for operation in branch:
        if isinstance(operation, Put):
            _refuse_second(operation.key, puts, deletes)
            puts.add(operation.key)
    return puts, deletes


def _refuse_second(key: str, puts: set[str], deletes: list[Delete]) -> None:
    # A delete of everything from a key on escapes etcd here; its interval counts as empty.
    if key in puts or (
        deletes
        and any(
            delete.range_end != ALL_FROM_KEY and in_range(key, delete.key, delete.range_end)
            for delete in deletes
        )
    ):
        raise InvalidTransaction(f"duplicate key given in txn request: {key}")


def _writes(txn: Txn) -> bool:
    """etcd takes every transaction with something else than ranges in it for a write."""
    return not all(isinstance(operation, Range) for operation in (*txn.then, *txn.otherwise))


def _at_most_bytes(txn: Txn) -> int:
    """Never less than its size, and found quickly: few transactions are anywhere near the limit."""
    most = _MOST_FRAME_BYTES * (1 + len(txn.compares) + len(txn.then) + len(txn.otherwise))
    for compare in txn.compares:
        operand = compare.operand
        most += 4 * len(compare.key) + (0 if isinstance(operand, int) else len(operand))
    for branch in (txn.then, txn.otherwise):
        for operation in branch:
            if isinstance(operation, Put):
                most += 4 * len(operation.key) + len(operation.value)
            elif isinstance(operation, Txn):
                most += _at_most_bytes(operation)
            else:
                most += 4 * (len(operation.key) + len(operation.range_end or ""))
    return most


def _txn_bytes(txn: Txn) -> int:
    """Its size as a protobuf message."""
    return sum(_field_bytes(size) for size in _part_sizes(txn))


def _part_sizes(txn: Txn) -> Iterator[int]:
    for compare in txn.compares:
        yield _compare_bytes(compare)
    for operation in (*txn.then, *txn.otherwise):
        yield _field_bytes(_operation_bytes(operation))


def _compare_bytes(compare: Compare) -> int:
    # Two enumerations of two bytes, each left out where it is 0; this may be 4 bytes too many.
    operand = compare.operand
    operand_bytes = (
        1 + _varint_bytes(operand) if isinstance(operand, int) else _field_bytes(len(operand))
    )
    return 4 + _text_bytes(compare.key) + operand_bytes


def _operation_bytes(operation: Operation) -> int:
    match operation:
        case Put():
            lease_bytes = 1 + _varint_bytes(operation.lease) if operation.lease else 0
            return _text_bytes(operation.key) + _field_bytes(len(operation.value)) + lease_bytes
        case Delete() | Range():
            return _text_bytes(operation.key) + _text_bytes(operation.range_end or "")
        case Txn():
            return _txn_bytes(operation)


def _text_bytes(text: str) -> int:
    return _field_bytes(len(text.encode("utf-8", "surrogateescape")))


def _field_bytes(length: int) -> int:
    return 1 + _varint_bytes(length) + length


def _varint_bytes(number: int) -> int:
    return max(1, (number.bit_length() + 6) // 7) if number >= 0 else 10
