"""
A deterministic simulator: the real engine under one seeded scheduler over virtual time.

`simulate(seed)` runs workers, agents, clocks and people of one small deployment against a
broker, a database, providers and machines that fail as the seed says, lets it come to rest,
and checks the promises against SQL and against what really happened. The same seed gives the
same history, always. `survey` runs many; ``leasehold simulate`` is the door to both.
"""

from leasehold.simulation.seed import Report, simulate
from leasehold.simulation.survey import Survey, survey

__all__ = ["Report", "Survey", "simulate", "survey"]
