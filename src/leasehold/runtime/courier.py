"""
A process's courier: threads of their own that send webhooks what they are owed.

The clock says that something is due, and turns on; whoever is slow or dead at the other end
holds a thread here and nothing else. When the process ends, deliveries under way get a moment;
one that is cut off is due again when its claim is over.
"""

import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final

from leasehold import seams
from leasehold.bootstrap import App
from leasehold.errors import BadInputError, LeaseholdError
from leasehold.log import get_logger
from leasehold.maintenance import deliveries
from leasehold.maintenance.deliveries import Letter
from leasehold.orchestrator import hooking
from leasehold.orchestrator.jobs import Context
from leasehold.outbound.addresses import networks
from leasehold.outbound.posting import Poster
from leasehold.settings import Settings
from leasehold.vault.making import KeysFile

log = get_logger(__name__)
_IDLE_S: Final = 30.0
_FAULT_WAIT_S: Final = 1.0
_LEAVE_S: Final = 2.0
CLAIM_SPARE: Final = timedelta(seconds=45)
"""How much longer a claim lasts than a post may: recording it may have to wait as well."""


class Courier:
    """Claims what is due while it has threads to spare, and sends each in one of them."""

    def __init__(
        self,
        context: Context,
        *,
        post: deliveries.Post,
        keys: Callable[[], hooking.Keys | None],
        size: int,
        timeout_s: float,
    ) -> None:
        self._context, self._post, self._keys = context, post, keys
        self._size = size
        self._hold = timedelta(seconds=timeout_s) + CLAIM_SPARE
        self._busy: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._wake, self._stop = seams.flag(), seams.flag()
        self._free = seams.flag()
        self._told = False
        self._thread = seams.thread(self._loop, name="courier")

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something is due: look now."""
        self._wake.set()

    def stop(self) -> None:
        """Send nothing new; what is under way gets a moment."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=_LEAVE_S)
        until = seams.boot_time() + _LEAVE_S
        while self._under_way() and (left := until - seams.boot_time()) > 0:
            self._free.clear()
            self._free.wait(min(left, 0.1))

    def _under_way(self) -> int:
        with self._lock:
            return self._busy.total()

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(_IDLE_S)
            self._wake.clear()
            try:
                if not self._stop.is_set() and self._can_sign():
                    self._turn()
            except LeaseholdError as error:
                log.warning("courier.put_off", why=str(error))
                self._stop.wait(_FAULT_WAIT_S)
            except Exception:
                log.exception("courier.fault")
                self._stop.wait(_FAULT_WAIT_S)

    def _can_sign(self) -> bool:
        """Whether this host has keys at all: one without leaves it to the others."""
        try:
            there = self._keys() is not None
        except BadInputError as error:
            log.warning("courier.no_keys", why=str(error))
            return False
        if not there and not self._told:
            self._told = True
            log.warning("courier.no_keys", why="no file LEASEHOLD_SECRET_KEYS_FILE here")
        return there

    def _turn(self) -> None:
        with self._lock:
            room, busy = self._size - self._busy.total(), dict(self._busy)
        if room <= 0:
            return  # who comes back wakes us
        for letter in deliveries.claim(self._context, room=room, hold=self._hold, busy=busy):
            with self._lock:
                self._busy[letter.webhook["id"]] += 1
            seams.thread(partial(self._deliver, letter), name="webhook").start()

    def _deliver(self, letter: Letter) -> None:
        try:
            deliveries.deliver(self._context, letter, post=self._post, secrets=self._secrets)
        except LeaseholdError as error:
            # Its claim ends by itself, then it is sent again.
            log.warning("webhook.unrecorded", delivery=letter.delivery["id"], why=str(error))
        except Exception:
            log.exception("webhook.fault", delivery=letter.delivery["id"])
        finally:
            with self._lock:
                self._busy[letter.webhook["id"]] -= 1
                self._busy += Counter()  # forget those with none
            self._free.set()
            self._wake.set()

    def _secrets(self, webhook: dict[str, object], now_us: int) -> list[str]:
        return hooking.secrets_of(self._keys(), webhook, now_us=now_us)


def poster(settings: Settings) -> Poster:
    """
    Return what posts, as the settings say.

    Raises:
        BadInputError: A network or a file of certificates is none.
    """
    try:
        allowed = networks(settings.webhook_networks)
    except ValueError as error:
        name = "LEASEHOLD_WEBHOOK_NETWORKS"
        raise BadInputError(f"{name}: {error}", field=name) from None
    try:
        return Poster(
            timeout_s=settings.webhook_timeout_s,
            allowed=allowed,
            ca_file=settings.webhook_ca_file,
        )
    except OSError as error:
        name = "LEASEHOLD_WEBHOOK_CA_FILE"
        raise BadInputError(
            f"{name}: {settings.webhook_ca_file}: {error}", field=name
        ) from None


def make(app: App, context: Context) -> Courier | None:
    """
    Return the courier of this process, or None if it is to send nothing.

    Raises:
        BadInputError: As `poster`.
    """
    settings = app.settings
    if not settings.webhook_deliveries:
        return None
    return Courier(
        context,
        post=poster(settings),
        keys=KeysFile(settings.secret_keys_path),
        size=settings.webhook_deliveries,
        timeout_s=settings.webhook_timeout_s,
    )
