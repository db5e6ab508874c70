"""The conformance suite on `docker`, with Docker Engine and with Podman."""

from pathlib import Path

import pytest

from engines.daemons import IMAGE, Running
from leasehold.provider.conformance import Harness
from leasehold.provider.conformance.leaks import names_below, processes_below
from leasehold.provider.conformance.suite import ProviderConformance
from leasehold_docker import make


def harness_of(engine: Running, tmp_path: Path) -> Harness:
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    scratch.mkdir()
    return Harness(
        provider=lambda deployment: make(
            {
                "root": str(root),
                "deployment": deployment,
                "host_id": "host-1",
                "socket": engine.socket,
            }
        ),
        config={"image": IMAGE},
        scratch=scratch,
        leaks=lambda: [*names_below(root), *processes_below(root)],
        # Time for a container to come up before it is over.
        short_ttl_s=5.0,
        limit_s=60.0,
    )


@pytest.mark.timeout(300)
class TestDockerEngine(ProviderConformance):
    @pytest.fixture
    def harness(self, docker_engine: Running, tmp_path: Path) -> Harness:
        return harness_of(docker_engine, tmp_path)


@pytest.mark.timeout(300)
class TestPodman(ProviderConformance):
    @pytest.fixture
    def harness(self, podman_engine: Running, tmp_path: Path) -> Harness:
        return harness_of(podman_engine, tmp_path)
