"""
The plugins of one worker process, loaded once, after any fork.

A plugin that fails to load, or that was written for another major version of the contract, is
kept with its reason and never stops the worker; nobody consumes its queue.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Any, Final

from leasehold.errors import UnsupportedError
from leasehold.provider.contract import API_VERSION, Provider

GROUP: Final = "leasehold.providers"
FAKE: Final = "fake"


class Registry:
    """Providers by key, and the reasons of those that are not there."""

    def __init__(
        self, providers: Mapping[str, Provider], failures: Mapping[str, str] | None = None
    ) -> None:
        self._providers = dict(providers)
        self.failures: dict[str, str] = dict(failures or {})

    @classmethod
    def load(
        cls, settings_for: Callable[[str], Mapping[str, Any]], *, allow_fake: bool = False
    ) -> "Registry":
        """
        Load every installed plugin, and the built-in `fake` where it is allowed.

        Args:
            settings_for: Returns what a plugin's factory is given, by the plugin's key.
        """
        registry = cls({})
        for entry in entry_points(group=GROUP):
            registry._try(entry.name, lambda entry=entry: _make(entry, settings_for))  # type: ignore[misc]  # bound now
        if allow_fake:
            registry._try(FAKE, lambda: _make_fake(settings_for))
        return registry

    def _try(self, key: str, make: Callable[[], Provider]) -> None:
        try:
            provider = make()
            info = provider.describe()
        except Exception as error:  # noqa: BLE001  a plugin's fault must not stop the worker
            self.failures[key] = f"{type(error).__name__}: {error}"
            return
        if info.api_version != API_VERSION:
            self.failures[key] = (
                f"written for version {info.api_version} of the provider contract; "
                f"this is version {API_VERSION}"
            )
        elif info.key != key:
            self.failures[key] = f"its entry point is {key!r}, but it calls itself {info.key!r}"
        else:
            self._providers[key] = provider

    def get(self, key: str) -> Provider | None:
        return self._providers.get(key)

    def keys(self) -> list[str]:
        return sorted(self._providers)

    def require(self, key: str) -> Provider:
        """
        Return a loaded provider.

        Raises:
            UnsupportedError: It is not loaded here; says why, or which ones are.
        """
        provider = self._providers.get(key)
        if provider is not None:
            return provider
        if key in self.failures:
            raise UnsupportedError(
                f"provider {key!r} could not be loaded: {self.failures[key]}"
            )
        there = ", ".join(self.keys()) or "none"
        raise UnsupportedError(f"provider {key!r} is not loaded here; loaded: {there}")


def make_one(key: str, settings: Mapping[str, Any]) -> Provider:
    """
    Make one provider anew, as the conformance suite does for each of its processes.

    Raises:
        UnsupportedError: No plugin of this name is installed.
    """
    if key == FAKE:
        return _make_fake(lambda _: settings)
    found = entry_points(group=GROUP)
    for entry in found:
        if entry.name == key:
            return _make(entry, lambda _: settings)
    there = ", ".join(sorted({FAKE, *found.names})) or "none"
    raise UnsupportedError(f"no provider {key!r} is installed; installed: {there}")


def _make(entry: EntryPoint, settings_for: Callable[[str], Mapping[str, Any]]) -> Provider:
    factory: Callable[[Mapping[str, Any]], Provider] = entry.load()
    return factory(settings_for(entry.name))


def _make_fake(settings_for: Callable[[str], Mapping[str, Any]]) -> Provider:
    from leasehold.provider.fake import make

    return make(settings_for(FAKE))


def preload() -> None:
    """
    Import every installed plugin whole, making none; what fails is reported when it is made.

    The door of a plugin may import the rest only when a provider is made.
    """
    for entry in entry_points(group=GROUP):
        with suppress(Exception):
            entry.load()
            package = import_module(entry.module)
            for part in iter_modules(getattr(package, "__path__", ())):
                if part.name != "__main__":
                    import_module(f"{entry.module}.{part.name}")
