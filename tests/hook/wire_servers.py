"""Just enough of PostgreSQL, MySQL and MongoDB for their real clients: each answers at once, but
for statements that say ``slow``, which take SLOW_S."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

SLOW_S = 0.03

# --- PostgreSQL, protocol 3.0 -------------------------------------------------------------------


def _message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


_DONE = _message(b"C", b"SELECT 1\0")
_READY = _message(b"Z", b"I")
_SETTINGS = {
    "server_version": "16.0", "client_encoding": "UTF8", "server_encoding": "UTF8",
    "integer_datetimes": "on", "standard_conforming_strings": "on", "TimeZone": "UTC",
}  # fmt: skip


#: What SQLAlchemy asks first; everything else is the number 7.
_TEXTS = {
    b"version()": b"PostgreSQL 16.0", b"current_schema": b"public",
    b"standard_conforming": b"on", b"isolation level": b"read committed",
}  # fmt: skip


def _text_of(statement: bytes) -> bytes | None:
    return next((v for word, v in _TEXTS.items() if word in statement), None)


def _fields(statement: bytes) -> bytes:
    kind, size = (25, -1) if _text_of(statement) else (23, 4)  # text, int4
    field = b"number\0" + struct.pack("!IhIhih", 0, 0, kind, size, -1, 0)
    return _message(b"T", struct.pack("!h", 1) + field)


def _row(statement: bytes, binary: bool) -> bytes:
    value = _text_of(statement) or (struct.pack("!i", 7) if binary else b"7")
    return _message(b"D", struct.pack("!hi", 1, len(value)) + value)


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        (length,) = struct.unpack("!I", await reader.readexactly(4))
        body = await reader.readexactly(length - 4)
        (code,) = struct.unpack("!I", body[:4])
        if code == 196608:
            break
        writer.write(b"N")  # no TLS, no GSSAPI
    writer.write(_message(b"R", struct.pack("!I", 0)))
    for name, value in _SETTINGS.items():
        writer.write(_message(b"S", f"{name}\0{value}\0".encode()))
    writer.write(_message(b"K", struct.pack("!II", 1, 2)) + _READY)


async def serve_postgresql(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _startup(reader, writer)
    statement, binary = b"", False
    while True:
        kind = await reader.readexactly(1)
        (length,) = struct.unpack("!I", await reader.readexactly(4))
        body = await reader.readexactly(length - 4)
        if kind == b"X":
            writer.close()
            return
        if kind == b"Q":
            if b"slow" in body:
                await asyncio.sleep(SLOW_S)
                writer.write(_fields(body) + _row(body, False) + _DONE)
            else:
                writer.write(_message(b"C", b"BEGIN\0"))
            writer.write(_READY)
        elif kind == b"P":
            statement = body
            writer.write(_message(b"1"))
        elif kind == b"D":
            parameters = _message(b"t", struct.pack("!h", 0)) if body[:1] == b"S" else b""
            writer.write(parameters + _fields(statement))
        elif kind == b"B":
            binary = body.endswith(struct.pack("!hh", 1, 1))
            writer.write(_message(b"2"))
        elif kind == b"E":
            if b"slow" in statement:
                await asyncio.sleep(SLOW_S)
            writer.write(_row(statement, binary) + _DONE)
        elif kind == b"C":
            writer.write(_message(b"3"))
        elif kind == b"S":
            writer.write(_READY)


# --- MySQL, protocol 10 --------------------------------------------------------------------------

_OK = b"\0\0\0\2\0\0\0"
_EOF = b"\xfe\0\0\2\0"


def _text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


_COLUMN = (
    _text(b"def") + _text(b"") * 3 + _text(b"number") + _text(b"") + b"\x0c"
    + struct.pack("<HIBHBH", 33, 11, 3, 0, 0, 0)
)  # fmt: skip


async def serve_mysql(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    def send(*bodies: bytes, first: int = 1) -> None:
        for number, body in enumerate(bodies, first):
            writer.write(struct.pack("<I", len(body))[:3] + bytes([number]) + body)

    able = 0x00000001 | 0x00000200 | 0x00008000 | 0x00080000  # long passwords, 4.1, plugins
    greeting = b"\x0a8.0.30\0" + struct.pack("<I", 1) + b"12345678\0"
    greeting += struct.pack("<HBHHB", able & 0xFFFF, 33, 2, able >> 16, 21) + b"\0" * 10
    send(greeting + b"123456789012\0mysql_native_password\0", first=0)
    first = True
    while True:
        head = await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(head[:3], "little"))
        if first:
            first = False
            send(_OK, first=head[3] + 1)
        elif body[:1] == b"\x01":
            writer.close()
            return
        elif body[:1] == b"\x03" and b"slow" in body:
            await asyncio.sleep(SLOW_S)
            send(b"\1", _COLUMN, _EOF, _text(b"7"), _EOF)
        else:
            send(_OK)


# --- MongoDB, OP_MSG -----------------------------------------------------------------------------


def _answer(command: dict[str, Any]) -> dict[str, Any]:
    if "find" in command or "aggregate" in command:
        return {"cursor": {"id": 0, "ns": "db.c", "firstBatch": [{"number": 7}]}, "ok": 1.0}
    return {
        "helloOk": True, "isWritablePrimary": True, "ismaster": True, "ok": 1.0,
        "maxBsonObjectSize": 1 << 24, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 1000,
        "minWireVersion": 0, "maxWireVersion": 21, "readOnly": False, "connectionId": 1,
        "logicalSessionTimeoutMinutes": 30,
    }  # fmt: skip


async def serve_mongodb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    import bson

    while True:
        try:
            head = await reader.readexactly(16)
        except asyncio.IncompleteReadError:
            writer.close()
            return
        length, number, _, code = struct.unpack("<iiii", head)
        body = await reader.readexactly(length - 16)
        if code == 2013:
            command = bson.decode(body[5:])
        else:  # OP_QUERY: the first hello of a connection
            command = bson.decode(body[body.index(b"\0", 4) + 9 :])
        if "slow" in str(command.get("filter", "")):
            await asyncio.sleep(SLOW_S)
        answer = bson.encode(_answer(command))
        if code == 2013:
            reply, kind = b"\0\0\0\0\0" + answer, 2013
        else:
            reply, kind = struct.pack("<iqii", 8, 0, 0, 1) + answer, 1
        writer.write(struct.pack("<iiii", len(reply) + 16, 1, number, kind) + reply)
