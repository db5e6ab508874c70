"""Pure rules: statuses and arrows, timers, specs, outcomes, fate. No I/O, no clock."""
