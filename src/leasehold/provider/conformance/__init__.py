"""
The conformance suite: what every provider has to do, as checks that anybody can run.

With pytest, a plugin's author writes

    from leasehold.provider.conformance import Harness
    from leasehold.provider.conformance.suite import ProviderConformance

    class TestMine(ProviderConformance):
        @pytest.fixture
        def harness(self, tmp_path):
            return Harness(provider=..., config={...}, scratch=tmp_path)

and without it `run_checks(installed("mine", scratch=...))` returns the results, which is what
`leasehold providers check KEY` shows.
Checks are selected by capability; what is not declared has to be refused.
"""

from leasehold.provider.conformance.catalogue import (
    AREAS,
    Check,
    CheckResult,
    Outcome,
    all_checks,
    iter_checks,
    run_check,
    run_checks,
)
from leasehold.provider.conformance.harness import ConformanceError, Harness
from leasehold.provider.conformance.installed import installed

__all__ = [
    "AREAS",
    "Check",
    "CheckResult",
    "ConformanceError",
    "Harness",
    "Outcome",
    "all_checks",
    "installed",
    "iter_checks",
    "run_check",
    "run_checks",
]
