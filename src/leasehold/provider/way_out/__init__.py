"""
The way out of a sandbox whose config has an allow-list, for any plugin on this host.

`allowing` says what the list lets through, `door` lets it through, and two programs keep a door
open: `entering` goes to listen in another process's network, `handed` is given a listener. A
plugin starts them with `program`. They run in an isolated interpreter without anything that is
installed beside the standard library: so what they import of ours are these modules alone, by
names relative to this package, and never through `leasehold.provider`.
"""
