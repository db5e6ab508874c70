"""The suite for pytest: subclass `ProviderConformance` and write the fixture `harness`."""

from typing import ClassVar

import pytest

from leasehold.provider.conformance import recording
from leasehold.provider.conformance.catalogue import Check, Outcome, all_checks, run_check
from leasehold.provider.conformance.harness import Harness


class ProviderConformance:
    """One test per check; a subclass has a fixture `harness`."""

    label: ClassVar[str] = ""
    """Its column in the published matrix, such as "docker (podman)"; by default the key."""

    @pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.name)
    def test_provider(self, check: Check, harness: Harness) -> None:
        result = run_check(check, harness)
        if (report := recording.wanted()) is not None:
            recording.record(report, self.label, recording.info_of(harness), result)
        if result.outcome is Outcome.SKIPPED:
            pytest.skip(result.reason)
        if result.outcome is Outcome.FAILED:
            pytest.fail(f"{result.area}: {result.name}\n{result.reason}", pytrace=False)
