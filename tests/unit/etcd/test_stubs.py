from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from etcsched.etcd import stubs


def test_etcd3_is_importable_and_uses_our_messages() -> None:
    stubs.load()
    etcd3 = importlib.import_module("etcd3")
    assert etcd3.etcdrpc.PutRequest is stubs.rpc_pb2.PutRequest
    assert callable(etcd3.client)


def test_fields_newer_than_etcd3_are_on_the_wire_where_etcd_expects_them() -> None:
    progress = stubs.rpc_pb2.WatchRequest(progress_request=stubs.rpc_pb2.WatchProgressRequest())
    assert progress.SerializeToString() == b"\x1a\x00"
    assert progress.WhichOneof("request_union") == "progress_request"
    assert stubs.rpc_pb2.WatchCreateRequest(fragment=True).SerializeToString() == b"\x40\x01"
    assert stubs.rpc_pb2.WatchResponse.FromString(b"\x38\x01").fragment


def test_another_layout_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "etcd3"
    (package / "etcdrpc").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "etcdrpc" / "kv_pb2.py").write_text("DESCRIPTOR = None\n")
    script = "import etcsched.etcd.stubs"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "holds no serialized descriptor; this program needs etcd3==0.12.0" in done.stderr


def test_only_this_layer_loads_grpc() -> None:
    """The supervisor forks, and gRPC and fork don't mix."""
    script = (
        "import sys, etcsched.ports, etcsched.core.session, etcsched.etcd.config;"
        "sys.exit('grpc' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], timeout=60, check=True)
