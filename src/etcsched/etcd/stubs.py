"""etcd3's messages and services, built by the protobuf that is installed.

The modules that protoc generated into etcd3 0.12.0 are refused by today's protobuf. The serialized
descriptors in them are sound, though: they are read out of the source text (nothing of it is run),
the message classes are built from them, and put in place of the generated modules before etcd3 is
imported. The descriptors are older than etcd 3.4, so the few fields that this program needs beyond
them are added first; their numbers are those of etcd's rpc.proto.

The classes live in a descriptor pool of their own: file names like ``rpc.proto`` may well be taken
in protobuf's default one. Importing this module takes about 0.1 s and loads grpc.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import threading
import types
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

__all__ = ["Etcd3LayoutError", "auth_pb2", "grpc_stubs", "kv_pb2", "load", "rpc_pb2"]

_FILES = ("kv", "auth", "rpc")  # in the order of their imports
_SERIALIZED = re.compile(r"serialized_pb=_b\(('(?:[^'\\\n]+|\\.)*')\)")
_load_lock = threading.Lock()

_Field = descriptor_pb2.FieldDescriptorProto


class Etcd3LayoutError(ImportError):
    """The installed etcd3 isn't laid out as 0.12.0 is."""


def load() -> None:
    """Make ``import etcd3`` work. Repeating it, from any thread, does nothing."""
    with _load_lock:
        names = [f"etcd3.etcdrpc.{file}_pb2" for file in _FILES]
        if all(name in sys.modules for name in names):
            return
        pool = descriptor_pool.DescriptorPool()
        modules = {}
        for file, name in zip(_FILES, names, strict=True):
            proto = descriptor_pb2.FileDescriptorProto.FromString(_serialized_descriptor(file))
            if file == "auth":
                _add_user_options(proto)
            if file == "rpc":
                _add_newer_fields(proto)
            pool.AddSerializedFile(proto.SerializeToString())
            modules[name] = _module_of(name, pool, proto.name)
        sys.modules.update(modules)
        try:
            importlib.import_module("etcd3")
        except BaseException:
            for name in names:
                del sys.modules[name]
            raise


def _serialized_descriptor(file: str) -> bytes:
    """The argument ``serialized_pb=_b('...')`` of one generated module."""
    spec = importlib.util.find_spec("etcd3")
    if spec is None or spec.origin is None:
        raise Etcd3LayoutError("the Python package etcd3 isn't installed; install etcd3==0.12.0")
    path = Path(spec.origin).parent / "etcdrpc" / f"{file}_pb2.py"
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Etcd3LayoutError(
            f"{path} can't be read ({error}); this program needs etcd3==0.12.0"
        ) from error
    # Only the literal is parsed: each command and each node would wait for the rest.
    found = _SERIALIZED.search(source)
    if found is None:
        raise Etcd3LayoutError(
            f"{path} holds no serialized descriptor; this program needs etcd3==0.12.0"
        )
    text: str = ast.literal_eval(found[1])
    return text.encode("latin-1")


def _add_user_options(auth: descriptor_pb2.FileDescriptorProto) -> None:
    options = auth.message_type.add(name="UserAddOptions")
    options.field.add(
        name="no_password", number=1, type=_Field.TYPE_BOOL, label=_Field.LABEL_OPTIONAL
    )


def _add_newer_fields(rpc: descriptor_pb2.FileDescriptorProto) -> None:
    messages = {message.name: message for message in rpc.message_type}

    def add(message: str, name: str, number: int, kind: Any, **more: Any) -> None:
        field = messages[message].field.add(name=name, number=number, type=kind, **more)
        if not field.HasField("label"):
            field.label = _Field.LABEL_OPTIONAL

    rpc.message_type.add(name="WatchProgressRequest")
    add(
        "WatchRequest",
        "progress_request",
        3,
        _Field.TYPE_MESSAGE,
        type_name=".etcdserverpb.WatchProgressRequest",
        oneof_index=0,
    )
    add(
        "AuthUserAddRequest",
        "options",
        3,
        _Field.TYPE_MESSAGE,
        type_name=".authpb.UserAddOptions",
    )
    add("WatchCreateRequest", "fragment", 8, _Field.TYPE_BOOL)
    add("WatchResponse", "fragment", 7, _Field.TYPE_BOOL)
    add("StatusResponse", "errors", 8, _Field.TYPE_STRING, label=_Field.LABEL_REPEATED)
    add("StatusResponse", "dbSizeInUse", 9, _Field.TYPE_INT64)
    add("StatusResponse", "isLearner", 10, _Field.TYPE_BOOL)
    add("Member", "isLearner", 5, _Field.TYPE_BOOL)


def _module_of(
    name: str, pool: descriptor_pool.DescriptorPool, proto_name: str
) -> types.ModuleType:
    """What protoc would generate: message classes, enum values, DESCRIPTOR."""
    file = pool.FindFileByName(proto_name)
    module = types.ModuleType(name)
    namespace: dict[str, Any] = {"DESCRIPTOR": file}
    for message_name, message in file.message_types_by_name.items():
        namespace[message_name] = message_factory.GetMessageClass(message)
    for enum in file.enum_types_by_name.values():
        namespace[enum.name] = enum_type_wrapper.EnumTypeWrapper(enum)
        namespace.update({value.name: value.number for value in enum.values})
    vars(module).update(namespace)
    return module


load()
rpc_pb2: Any = sys.modules["etcd3.etcdrpc.rpc_pb2"]
auth_pb2: Any = sys.modules["etcd3.etcdrpc.auth_pb2"]
kv_pb2: Any = sys.modules["etcd3.etcdrpc.kv_pb2"]
grpc_stubs: Any = importlib.import_module("etcd3.etcdrpc.rpc_pb2_grpc")
