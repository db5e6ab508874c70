"""Take a body of any size: it goes to disk as it comes, and is hashed on the way."""

import hashlib
from collections.abc import Callable
from typing import Any, BinaryIO, Final

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

FILE: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string"}}},
    }
}
"""What the OpenAPI document says of such a body."""

_WRITE_BYTES: Final = 1024 * 1024


async def spooled(request: Request, spool: BinaryIO) -> tuple[str, int]:
    """Write the body into a file; return its SHA-256 and its size."""
    digest, size = hashlib.sha256(), 0
    waiting = bytearray()
    async for part in request.stream():
        size += len(part)
        waiting += part
        if len(waiting) >= _WRITE_BYTES:
            await _write(spool, digest.update, waiting)
    await _write(spool, digest.update, waiting)
    return digest.hexdigest(), size


async def _write(
    spool: BinaryIO, update: Callable[[bytes], object], waiting: bytearray
) -> None:
    part = bytes(waiting)
    waiting.clear()
    update(part)
    await run_in_threadpool(spool.write, part)
