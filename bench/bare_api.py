"""
FastAPI routes that send statements and nothing else: what `api.py` and `viewers.py` are
compared with.

Reads one JSON object from standard input (the database's address, the statements of one
create with the values that they had, the id in them), and serves until killed.
"""

import asyncio
import json
import sys
import threading
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import psycopg
import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse, StreamingResponse

_CONNECTIONS: Final = 10
_EVERY_S: Final = 0.25
_LINES: Final = (
    "SELECT id, data FROM events WHERE run_id = %s AND id > %s ORDER BY id LIMIT 500"
)


class Asking:
    """Asks for each viewer alone, as often as the shared poller asks for all."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._idle: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()
        self._made = 0

    async def _connection(self) -> psycopg.AsyncConnection[Any]:
        if self._idle.empty() and self._made < _CONNECTIONS:
            self._made += 1
            return await psycopg.AsyncConnection.connect(self._database, autocommit=True)
        return await self._idle.get()

    async def lines(self, run_id: str) -> AsyncIterator[str]:
        after = 0
        while True:
            link = await self._connection()
            rows = await (await link.execute(_LINES, (run_id, after))).fetchall()
            self._idle.put_nowait(link)
            for number, data in rows:
                after = number
                yield f"id: {number}\ndata: {json.dumps(data)}\n\n"
            if not rows:
                await asyncio.sleep(_EVERY_S)


def make(orders: dict[str, Any]) -> FastAPI:
    app, kept = FastAPI(), threading.local()
    asking = Asking(orders["database"])
    old = str(orders["id"])

    @app.post("/runs", status_code=201)
    def create(body: dict[str, Any]) -> JSONResponse:
        new = str(uuid.uuid4())
        if not hasattr(kept, "connection"):
            kept.connection = psycopg.connect(orders["database"])
        with kept.connection.transaction():
            cursor = psycopg.RawCursor(kept.connection)
            for sql, values in orders["statements"]:
                cursor.execute(
                    sql,
                    [v.replace(old, new) if isinstance(v, str) else v for v in values],
                )
                if cursor.description:
                    cursor.fetchall()
        return JSONResponse({"id": new, "commands": body["commands"]}, status_code=201)

    @app.get("/watch/{run_id}")
    async def watch(run_id: str) -> StreamingResponse:
        return StreamingResponse(asking.lines(run_id), media_type="text/event-stream")

    @app.get("/nothing")
    def nothing() -> JSONResponse:
        return JSONResponse({})

    return app


def main() -> None:
    orders = json.loads(sys.stdin.readline())
    uvicorn.run(make(orders), host="127.0.0.1", port=orders["port"], log_level="error")


if __name__ == "__main__":
    main()
