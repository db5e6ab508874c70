"""
A FastAPI route that sends given statements and nothing else: what `api.py` is compared with.

Reads one JSON object from standard input (the database's address, the statements of one
create with the values that they had, the id in them), and serves until killed.
"""

import json
import sys
import threading
import uuid
from typing import Any

import psycopg
import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse


def make(orders: dict[str, Any]) -> FastAPI:
    app, kept = FastAPI(), threading.local()
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

    @app.get("/nothing")
    def nothing() -> JSONResponse:
        return JSONResponse({})

    return app


def main() -> None:
    orders = json.loads(sys.stdin.readline())
    uvicorn.run(make(orders), host="127.0.0.1", port=orders["port"], log_level="error")


if __name__ == "__main__":
    main()
