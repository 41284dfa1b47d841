"""The headline's stock service: carts and prices over TCP, each answer after some milliseconds."""

from __future__ import annotations

import asyncio
import random
import sys

ITEMS = 5  # of every cart
ANSWER_S = (0.005, 0.009)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: a line of question, a line of answer."""
    while line := await reader.readline():
        word, _, rest = line.decode().strip().partition(" ")
        await asyncio.sleep(random.uniform(*ANSWER_S))
        items = [f"item-{rest}-{number}" for number in range(ITEMS)]
        answer = items if word == "cart" else ["1299" for _ in rest.split(",")]
        writer.write((",".join(answer) + "\n").encode())
    writer.close()


async def main() -> None:
    """Listen until killed."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
