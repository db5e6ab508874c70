"""Everything on one machine, no server needed: broker, database, agent, in one home."""
