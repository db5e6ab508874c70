"""A store of objects: `s3://` by a real server that speaks S3."""

import hashlib
import io
import random
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from leasehold.blobs import Blobs
from leasehold.errors import BlobMissingError, BlobsUnavailableError
from leasehold.store import artifacts
from objects import BUCKET, Objects, environment, lent, set_initial_no_auth_action_count
from story.conftest import House

MANY: Final = 13 * 1024 * 1024 + 7
"""Bytes of several parts, the last one short."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    with lent() as one:
        for name, value in environment(one).items():
            monkeypatch.setenv(name, value)
        one.client().create_bucket(Bucket=BUCKET)
        yield one


@pytest.fixture
def blobs(server: Objects) -> Blobs:
    return Blobs(f"s3://{BUCKET}/deep/down")


def some(size: int) -> tuple[bytes, str]:
    data = random.Random(size).randbytes(size)  # noqa: S311  the same each time
    return data, hashlib.sha256(data).hexdigest()


def put(blobs: Blobs, data: bytes, digest: str, source: io.BytesIO | None = None) -> None:
    blobs.put("default", source or io.BytesIO(data), name=digest, size=len(data))


def got(blobs: Blobs, digest: str) -> bytes:
    target = io.BytesIO()
    blobs.fetch("default", digest, target)
    return target.getvalue()


class Interfering(io.BytesIO):
    """A source in whose middle something happens."""

    def __init__(self, data: bytes, act: Callable[[], object]) -> None:
        super().__init__(data)
        self._act: Callable[[], object] | None = act

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > MANY // 2 and self._act is not None:
            act, self._act = self._act, None
            act()
        return super().read(size)


@pytest.mark.parametrize("size", [0, 1, 5 * 1024 * 1024, MANY])
def test_what_is_stored_comes_back_whatever_its_size(
    blobs: Blobs, server: Objects, size: int
) -> None:
    data, digest = some(size)
    assert blobs.size("default", digest) is None
    put(blobs, data, digest)
    assert blobs.size("default", digest) == size
    assert got(blobs, digest) == data
    assert server.names() == [f"deep/down/default/{digest[:2]}/{digest}"]
    assert server.unfinished() == 0


def test_what_another_process_stored_is_seen_at_once(blobs: Blobs, server: Objects) -> None:
    data, digest = some(10)
    assert blobs.size("default", digest) is None
    key = f"deep/down/default/{digest[:2]}/{digest}"
    server.client().put_object(Bucket=BUCKET, Key=key, Body=data)
    assert blobs.size("default", digest) == 10


def test_a_source_that_fails_half_way_leaves_no_object(blobs: Blobs, server: Objects) -> None:
    data, digest = some(MANY)

    def fail() -> None:
        raise OSError("the disk refused")

    with pytest.raises(BlobsUnavailableError, match="the disk refused"):
        put(blobs, data, digest, Interfering(data, fail))
    assert server.names() == []
    assert server.unfinished() == 0
    put(blobs, data, digest)
    assert got(blobs, digest) == data


def test_a_server_that_goes_away_in_the_middle_of_an_upload_leaves_no_object(
    blobs: Blobs, server: Objects
) -> None:
    data, digest = some(MANY)
    with pytest.raises(BlobsUnavailableError, match="s3://store") as caught:
        put(blobs, data, digest, Interfering(data, server.stop))
    assert caught.value.retryable
    server.start()
    assert server.names() == []
    put(blobs, data, digest)
    assert got(blobs, digest) == data


def test_a_server_that_is_away_is_told_as_that(blobs: Blobs, server: Objects) -> None:
    data, digest = some(10)
    put(blobs, data, digest)
    server.stop()
    for ask in (lambda: blobs.size("default", digest), lambda: got(blobs, digest)):
        with pytest.raises(BlobsUnavailableError) as caught:
            ask()
        assert caught.value.retryable
    server.start()
    assert got(blobs, digest) == data


def test_a_bucket_that_is_not_there_is_named(server: Objects) -> None:
    blobs = Blobs("s3://no-such-bucket/x")
    data, digest = some(10)
    with pytest.raises(BlobsUnavailableError, match=r"s3://no-such-bucket/x.*does not exist"):
        put(blobs, data, digest)
    with pytest.raises(BlobMissingError, match="s3://no-such-bucket/x"):
        got(blobs, digest)


def test_a_wrong_key_is_told_as_a_refusal_not_as_a_missing_blob(
    blobs: Blobs, server: Objects
) -> None:
    data, digest = some(10)
    put(blobs, data, digest)

    @set_initial_no_auth_action_count(0)
    def with_keys_looked_at() -> None:
        for ask in (
            lambda: blobs.size("default", digest),
            lambda: got(blobs, digest),
            lambda: put(blobs, *some(11)),
        ):
            with pytest.raises(BlobsUnavailableError, match="PermissionError"):
                ask()

    with_keys_looked_at()


def test_a_damaged_object_is_never_taken_for_the_right_one(
    blobs: Blobs, server: Objects
) -> None:
    data, digest = some(10)
    put(blobs, data, digest)
    (key,) = server.names()
    server.client().put_object(Bucket=BUCKET, Key=key, Body=b"x" * 10)
    with pytest.raises(BlobMissingError, match="damaged"):
        got(blobs, digest)


def test_artifacts_of_a_run_go_there_and_wait_for_a_server_that_is_away(
    lab: House, blobs: Blobs, server: Objects
) -> None:
    lab.environment()
    server.stop()
    run_id = lab.submit(*["write", "a", "1"], artifacts=["a"])
    lab.until(lambda: "artifacts.failed" in lab.events(run_id))
    server.start()
    row = lab.over(run_id)
    assert row["artifacts_error"] is None
    with lab.database.read() as tx:
        kept = {one["path"]: one["sha256"] for one in artifacts.of_run(tx, run_id)}
    assert got(blobs, kept["a"]) == b"1\n"
