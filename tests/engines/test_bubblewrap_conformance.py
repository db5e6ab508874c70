"""The conformance suite on `bubblewrap`, on this host's own kernel."""

from pathlib import Path

import pytest

from bubblewrap_world import require_bubblewrap
from leasehold.provider.conformance import Harness
from leasehold.provider.conformance.leaks import names_below, processes_below
from leasehold.provider.conformance.suite import ProviderConformance
from leasehold_bubblewrap import make


class TestBubblewrap(ProviderConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        require_bubblewrap()
        root, scratch = tmp_path / "root", tmp_path / "scratch"
        scratch.mkdir()
        return Harness(
            provider=lambda deployment: make(
                {"root": str(root), "deployment": deployment, "host_id": "host-1"}
            ),
            config={"env": {}},
            scratch=scratch,
            leaks=lambda: [*names_below(root), *processes_below(root)],
        )
