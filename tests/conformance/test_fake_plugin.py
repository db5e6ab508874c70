"""The conformance suite on the example plugin, whose executions are the shell supervisor's."""

from pathlib import Path

import pytest

from leasehold.provider.conformance import Harness
from leasehold.provider.conformance.leaks import names_below, processes_below
from leasehold.provider.conformance.suite import ProviderConformance
from leasehold_fake_plugin import make


class TestFakePlugin(ProviderConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        root, scratch = tmp_path / "root", tmp_path / "scratch"
        scratch.mkdir()
        return Harness(
            provider=lambda deployment: make({"root": str(root), "deployment": deployment}),
            config={"grace_ms": 60_000},
            scratch=scratch,
            leaks=lambda: [*names_below(root), *processes_below(root)],
        )
