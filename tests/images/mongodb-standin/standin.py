"""What the two stand-ins share: BSON, and the messages of MongoDB's wire protocol.

Documents are kept as they came, as bytes: whatever a client stores, it gets back to the last bit, and only what a
command has to look at is decoded. Sources: bsonspec.org; MongoDB manual, "Wire Protocol".
"""

import datetime
import struct

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
MORE_TO_COME = 2
LARGEST_MESSAGE = 48_000_000


class Malformed(Exception):
    """Bytes that are not what the protocol says."""


class Document(bytes):
    """A document in BSON that is passed on as it is."""


def _text(data, at):
    end = data.index(0, at)
    return data[at:end].decode(), end + 1


_FIXED = {0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16, 0x7F: 0, 0xFF: 0}


def _size(kind, data, at):
    if kind in _FIXED:
        return _FIXED[kind]
    if kind == 0x0B:
        return _text(data, _text(data, at)[1])[1] - at
    length = struct.unpack_from("<i", data, at)[0]
    extra = {0x02: 4, 0x03: 0, 0x04: 0, 0x05: 5, 0x0C: 16, 0x0D: 4, 0x0E: 4, 0x0F: 0}
    if kind not in extra or length < 0:
        raise Malformed(f"BSON type {kind}, length {length}")
    return length + extra[kind]


def elements(document):
    """The fields of a document: name -> (type, value as bytes), in their order."""
    try:
        if struct.unpack_from("<i", document)[0] != len(document) or document[-1] != 0:
            raise Malformed("length of a document")
        found, at = {}, 4
        while at < len(document) - 1:
            kind = document[at]
            name, at = _text(document, at + 1)
            size = _size(kind, document, at)
            if at + size > len(document) - 1:
                raise Malformed(f"length of {name}")
            found[name] = (kind, document[at : at + size])
            at += size
        return found
    except (struct.error, ValueError, IndexError) as error:
        raise Malformed(str(error)) from error


def value(element):
    """What an element means, as far as commands need it; a nested document stays one."""
    kind, data = element
    if kind == 0x01:
        return struct.unpack("<d", data)[0]
    if kind == 0x02:
        return data[4:-1].decode()
    if kind == 0x03:
        return Document(data)
    if kind == 0x04:
        return [value(item) for item in elements(data).values()]
    if kind == 0x08:
        return data != b"\0"
    if kind in (0x10, 0x12):
        return int.from_bytes(data, "little", signed=True)
    return None if kind == 0x0A else data


def decode(document):
    """A document with all that is in it."""
    decoded = {name: value(element) for name, element in elements(document).items()}
    return {name: decode(item) if isinstance(item, Document) else item for name, item in decoded.items()}


def _element(name, item):
    name = name.encode() + b"\0"
    if isinstance(item, bool):
        return b"\x08" + name + bytes([item])
    if isinstance(item, int):
        return b"\x12" + name + struct.pack("<q", item) if abs(item) >> 31 else b"\x10" + name + struct.pack("<i", item)
    if isinstance(item, float):
        return b"\x01" + name + struct.pack("<d", item)
    if isinstance(item, str):
        text = item.encode() + b"\0"
        return b"\x02" + name + struct.pack("<i", len(text)) + text
    if isinstance(item, Document):
        return b"\x03" + name + item
    if isinstance(item, dict):
        return b"\x03" + name + encode(item)
    if isinstance(item, list):
        return b"\x04" + name + encode({str(index): entry for index, entry in enumerate(item)})
    if isinstance(item, datetime.datetime):
        return b"\x09" + name + struct.pack("<q", int(item.timestamp() * 1000))
    if item is None:
        return b"\x0a" + name
    raise TypeError(f"no BSON for {type(item)}")


def encode(fields):
    """A document of these fields."""
    body = b"".join(_element(name, item) for name, item in fields.items())
    return Document(struct.pack("<i", len(body) + 5) + body + b"\0")


def exactly(connection, count):
    """That many bytes; EOFError if the other end hangs up first."""
    data = b""
    while len(data) < count:
        chunk = connection.recv(min(count - len(data), 1 << 16))
        if not chunk:
            raise EOFError
        data += chunk
    return data


def receive(connection):
    """The next message: its id, its operation, and what follows the header."""
    length, request, _, operation = struct.unpack("<iiii", exactly(connection, 16))
    if not 16 <= length <= LARGEST_MESSAGE:
        raise Malformed(f"length of a message: {length}")
    return request, operation, exactly(connection, length - 16)


def send(connection, operation, body, answered=0, number=1):
    connection.sendall(struct.pack("<iiii", len(body) + 16, number, answered, operation) + body)


def message(document):
    """The body of an OP_MSG."""
    return struct.pack("<I", 0) + b"\0" + document


def sections(body):
    """Of an OP_MSG: its flags, its document, and its further sections by name, each a list of documents."""
    try:
        flags = struct.unpack_from("<I", body)[0]
        end = len(body) - (4 if flags & 1 else 0)
        at, document, more = 4, None, {}
        while at < end:
            kind, at = body[at], at + 1
            size = struct.unpack_from("<i", body, at)[0]
            if size < 5 or at + size > end:
                raise Malformed("length of a section")
            if kind == 0:
                document = Document(body[at : at + size])
            elif kind == 1:
                name, inner = _text(body, at + 4)
                more[name] = []
                while inner < at + size:
                    length = struct.unpack_from("<i", body, inner)[0]
                    if length < 5:
                        raise Malformed("length of a document")
                    more[name].append(Document(body[inner : inner + length]))
                    inner += length
            else:
                raise Malformed(f"kind of a section: {kind}")
            at += size
        if document is None:
            raise Malformed("a message without a document")
        return flags, document, more
    except (struct.error, ValueError, IndexError) as error:
        raise Malformed(str(error)) from error
