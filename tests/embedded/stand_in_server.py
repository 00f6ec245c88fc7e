"""`stand_in_server.py FD GRACE`: `app.api.serving` over an application with streams that end well, and that do not.

/plain answers at once · /polite streams until `stopping` · /rude streams for ever · /slow answers after stopping
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

from app.api import serving


async def main(fd: int, grace: int) -> int:
    stopping = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/slow":
            await stopping.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"request-id", b"req_1")]})
        await send({"type": "http.response.body", "body": b"begin\n", "more_body": True})
        if scope["path"] == "/polite":
            await stopping.wait()
        if scope["path"] == "/rude":
            await asyncio.Event().wait()
        await send({"type": "http.response.body", "body": b"end\n"})

    await serving.serve(app, listener=socket.socket(fileno=fd), stopping=stopping, grace=grace)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]))))
