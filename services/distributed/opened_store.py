"""Opening the store of the ledger that the settings speak of, and of no other."""

from __future__ import annotations

from ledger.event_log import SUBMISSIONS
from ledger.export import opening_of
from ledger.governing import GOVERNING
from ledger.stores.postgres import SILENCE, PostgresStore
from services.distributed.settings import DistributedSettings
from services.settings import SettingsError


def open_store(settings: DistributedSettings, *, reads_only: bool = False) -> PostgresStore:
    """Open the store of a service. Raises StoreError, and SettingsError as `check_store` does."""
    conninfo = settings.reader_conninfo() if reads_only else settings.conninfo()
    store = PostgresStore(conninfo, read_only=reads_only, silence=SILENCE)
    try:
        check_store(store, settings)
    except BaseException:
        store.close()
        raise
    return store


def check_store(store: PostgresStore, settings: DistributedSettings) -> None:
    """Raise SettingsError where the store is another ledger's, or was made of other topics than those meant."""
    fixed = store.partitions(SUBMISSIONS)
    if fixed not in (None, settings.partitions):
        raise SettingsError(
            f"the database is of topics with {fixed} partitions, and the settings say {settings.partitions}"
        )
    head = store.heads().get(GOVERNING)
    if head is not None and head.size:
        origin = opening_of(store).origin
        if origin != settings.origin:
            raise SettingsError(f"the database holds {origin}, and the settings are of {settings.origin}")
