"""Takes what TCP sinks send and keeps it: each line behind the time in ms when it came.

collect.py PORT FILE; over HTTP, on the next port, it says how many lines there are.
"""

import asyncio
import json
import sys
import time
from pathlib import Path


async def main(port: int, path: Path) -> None:
    """Listen until the pod ends."""
    lines = 0

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"lines": lines}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    with path.open("ab", buffering=0) as file:

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            rest = b""
            try:
                while data := await reader.read(1 << 18):
                    now = b"%d " % (time.time() * 1000)
                    # What a connection began and did not finish is sent again on the next one.
                    whole, _, rest = (rest + data).rpartition(b"\n")
                    if whole:
                        nonlocal lines
                        lines += whole.count(b"\n") + 1
                        file.write(now + whole.replace(b"\n", b"\n" + now) + b"\n")
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(take, "0.0.0.0", port)
        async with server, await asyncio.start_server(say, "0.0.0.0", port + 1):
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
