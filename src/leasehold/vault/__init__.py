"""
Where the values of secrets come from: encrypted rows, the environment, files.

`Vault` resolves pins (name → version) to values and remembers them for a moment, since a beat
asks for the same ones again and again. Nothing here writes a value anywhere.
"""

from leasehold.vault.keys import Keys
from leasehold.vault.vault import Vault

__all__ = ["Keys", "Vault"]
