"""A server that speaks S3, for tests: moto's, in this process, on a free loopback port."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import boto3
import s3fs
from moto.core import set_initial_no_auth_action_count
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

BUCKET: Final = "store"
_REGION: Final = "us-east-1"


@dataclass
class Objects:
    """What it holds stays while it is away."""

    port: int
    server: ThreadedMotoServer = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.server.start()

    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.url, region_name=_REGION)

    def names(self) -> list[str]:
        found = self.client().list_objects_v2(Bucket=BUCKET)
        return [one["Key"] for one in found.get("Contents", ())]

    def unfinished(self) -> int:
        """Return how many uploads wait for their end."""
        found = self.client().list_multipart_uploads(Bucket=BUCKET)
        return len(found.get("Uploads", ()))


def environment(one: Objects) -> dict[str, str]:
    """Return the variables by which a process reaches it, as AWS' own tools read them."""
    return {
        "AWS_ENDPOINT_URL": one.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": _REGION,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def lent() -> Iterator[Objects]:
    """Lend a server; whoever uses it sets `environment` and makes a bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    one = Objects(server.get_host_and_port()[1], server)
    try:
        yield one
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        one.stop()
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()


__all__ = ["BUCKET", "Objects", "environment", "lent", "set_initial_no_auth_action_count"]
