"""The suite for pytest: subclass `ProviderConformance` and write the fixture `harness`."""

import pytest

from leasehold.provider.conformance.catalogue import Check, Outcome, all_checks, run_check
from leasehold.provider.conformance.harness import Harness


class ProviderConformance:
    """One test per check; a subclass has a fixture `harness`."""

    @pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.name)
    def test_provider(self, check: Check, harness: Harness) -> None:
        result = run_check(check, harness)
        if result.outcome is Outcome.SKIPPED:
            pytest.skip(result.reason)
        if result.outcome is Outcome.FAILED:
            pytest.fail(f"{result.area}: {result.name}\n{result.reason}", pytrace=False)
