"""The conformance suite on the built-in `fake`."""

from pathlib import Path

import pytest

from leasehold.provider.conformance import Harness
from leasehold.provider.conformance.leaks import names_below
from leasehold.provider.conformance.suite import ProviderConformance
from leasehold.provider.fake import make


class TestFake(ProviderConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        root, scratch = tmp_path / "root", tmp_path / "scratch"
        scratch.mkdir()
        return Harness(
            provider=lambda _deployment: make({"root": root}),
            config={"image": "any", "reuse_lease": True},
            scratch=scratch,
            leaks=lambda: [
                name for name in (*names_below(root), *names_below(root / "sb")) if name != "sb"
            ],
            posix_commands=False,
            short_ttl_s=0.3,
        )
