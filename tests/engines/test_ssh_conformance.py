"""The conformance suite on `ssh`, against a real sshd."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.sshd import Sshd, serving
from leasehold.provider.conformance import Harness
from leasehold.provider.conformance.leaks import names_below, processes_below
from leasehold.provider.conformance.suite import ProviderConformance
from leasehold_ssh.connections import Connections
from leasehold_ssh.provider import SshProvider


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("sshd")) as server:
        yield server


class OneOfAProcess(SshProvider):
    """
    All that one process makes share its connections, as the one of a worker would.

    A forked child finds itself to be another process, and connects anew.
    """

    def __init__(self, connections: Connections) -> None:
        super().__init__({}, connections=connections)

    def close(self) -> None:
        """Leave them open for the others; the fixture closes them."""


@pytest.fixture(scope="module")
def connections() -> Iterator[Connections]:
    connections = Connections()
    yield connections
    connections.close()


class TestSsh(ProviderConformance):
    @pytest.fixture
    def harness(self, server: Sshd, connections: Connections, tmp_path: Path) -> Harness:
        root, scratch = tmp_path / "root", tmp_path / "scratch"
        scratch.mkdir()
        return Harness(
            provider=lambda _: OneOfAProcess(connections),
            config=server.config(root),
            scratch=scratch,
            # The target is this host, so what is left there can be seen.
            leaks=lambda: [*names_below(root), *processes_below(root)],
        )
