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

from leasehold.errors import ProviderError, UnsupportedError
from leasehold.provider.contract import API_VERSION, Info, Provider

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
        if (why := _misfit(key, info)) is not None:
            self.failures[key] = why
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
        UnsupportedError: No plugin of this name is installed, or a worker would not take it.
        ProviderError: The plugin refuses its settings.
    """
    if key == FAKE:
        return _make_fake(lambda _: settings)
    found = entry_points(group=GROUP)
    for entry in found:
        if entry.name == key:
            return _checked(entry, settings)
    there = ", ".join(sorted({FAKE, *found.names})) or "none"
    raise UnsupportedError(f"no provider {key!r} is installed; installed: {there}")


def _checked(entry: EntryPoint, settings: Mapping[str, Any]) -> Provider:
    try:
        provider = _make(entry, lambda _: settings)
    except ProviderError:
        raise
    except Exception as error:
        raise UnsupportedError(
            f"provider {entry.name!r} could not be loaded: {type(error).__name__}: {error}"
        ) from error
    if (why := _misfit(entry.name, provider.describe())) is not None:
        provider.close()
        raise UnsupportedError(f"provider {entry.name!r}: {why}")
    return provider


def _misfit(key: str, info: Info) -> str | None:
    """Say why a worker does not take a plugin that loads."""
    if info.api_version != API_VERSION:
        return (
            f"written for version {info.api_version} of the provider contract; "
            f"this is version {API_VERSION}"
        )
    if info.key != key:
        return f"its entry point is {key!r}, but it calls itself {info.key!r}"
    return None


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
