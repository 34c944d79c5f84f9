"""Sends frames to TCP sources: numbers, or the lines of a text; prints what was sent, as JSON.

load.py HOST PORT numbers RATE CONNECTIONS [RECONNECT]   until the file /tmp/enough is there
load.py HOST PORT lines CONNECTIONS                      of /tmp/text.gz, once that is there

A client of a worker that is about to leave reads an end of file: it closes its connection and opens
another, and loses nothing. Each connection does so every RECONNECT seconds, too, and so comes to
workers that are new.
"""

import asyncio
import contextlib
import gzip
import json
import struct
import sys
import time
from pathlib import Path

_ENOUGH, _TEXT = Path("/tmp/enough"), Path("/tmp/text.gz")


class Client:
    """A connection that is made anew when its worker wants it closed, or it breaks."""

    def __init__(self, host: str, port: int, again: float = 0) -> None:
        self.host, self.port, self.again = host, port, again
        self.writer: asyncio.StreamWriter | None = None
        self.reader: asyncio.StreamReader | None = None
        self.until = 0.0
        self.connections = self.broken = 0

    async def send(self, data: bytes) -> None:
        """Hand it to the kernel, on a connection that nobody wants closed."""
        reader, writer = self.reader, self.writer
        if reader and writer and (reader.at_eof() or (self.again and time.time() > self.until)):
            await self.close()
            writer = None
        if not writer:
            writer = await self._connect()
        try:
            writer.write(data)
            await writer.drain()
        except OSError:  # at most once: what it had is gone
            self.broken += 1
            self.writer = None

    async def _connect(self) -> asyncio.StreamWriter:
        while True:
            try:
                self.reader, self.writer = await asyncio.wait_for(
                    asyncio.open_connection(self.host, self.port), 3
                )
            except (OSError, TimeoutError):
                await asyncio.sleep(0.1)
                continue
            self.connections += 1
            self.until = time.time() + self.again
            return self.writer

    async def close(self) -> None:
        """All that was sent arrives, then an end of file."""
        if self.writer:
            with contextlib.suppress(OSError):
                self.writer.close()
                await self.writer.wait_closed()
            self.writer = None


def frame(payload: bytes) -> bytes:
    """A frame with a header of four bytes."""
    return struct.pack(">I", len(payload)) + payload


async def numbers(host: str, port: int, rate: float, connections: int, again: float) -> None:
    """Connection c of n sends c + 1, c + 1 + n, c + 1 + 2n, …; all end at the same round."""
    clients = [Client(host, port, again) for _ in range(connections)]
    begin = time.monotonic()
    last = 0  # rounds that are to be sent

    async def one(index: int, client: Client) -> None:
        done = 0
        while done < last or not _ENOUGH.exists():
            now = min(last, done + 500)
            if now > done:
                sent = range(done * connections + index + 1, now * connections + 1, connections)
                await client.send(b"".join(frame(b"%d" % number) for number in sent))
                done = now
            else:
                await asyncio.sleep(0.005)
        await client.close()

    async def clock() -> None:
        nonlocal last
        while not _ENOUGH.exists():
            last = int((time.monotonic() - begin) * rate / connections)
            await asyncio.sleep(0.005)

    await asyncio.gather(clock(), *(one(index, each) for index, each in enumerate(clients)))
    tell(last * connections, clients, begin)


async def lines(host: str, port: int, connections: int) -> None:
    """Each connection sends every n-th line, as fast as they are taken."""
    while not _TEXT.exists():
        await asyncio.sleep(0.1)
    text = gzip.decompress(_TEXT.read_bytes()).splitlines()
    clients = [Client(host, port) for _ in range(connections)]
    begin = time.monotonic()

    async def one(index: int, client: Client) -> None:
        mine = text[index::connections]
        for start in range(0, len(mine), 100):
            await client.send(b"".join(map(frame, mine[start : start + 100])))
        await client.close()

    await asyncio.gather(*(one(index, each) for index, each in enumerate(clients)))
    tell(len(text), clients, begin)


def tell(sent: int, clients: list[Client], begin: float) -> None:
    """Say what was sent, on the last line."""
    found = {
        "sent": sent,
        "seconds": time.monotonic() - begin,
        "connections": sum(each.connections for each in clients),
        "broken": sum(each.broken for each in clients),
    }
    print(json.dumps(found), flush=True)


def main(args: list[str]) -> None:
    host, port, what, *rest = args
    if what == "numbers":
        rate, connections, *again = rest
        wait = float(again[0]) if again else 0.0
        asyncio.run(numbers(host, int(port), float(rate), int(connections), wait))
    else:
        asyncio.run(lines(host, int(port), int(rest[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
