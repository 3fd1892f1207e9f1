"""Which store an API server's flags mean."""

from __future__ import annotations

from shipwheel.api.clock import Clock
from shipwheel.apiserver.config import ApiServerConfig
from shipwheel.store.base import Store


def open_store(config: ApiServerConfig, clock: Clock) -> Store:
    """etcd when there are servers of it, else the embedded one. It still has to be opened."""
    if config.etcd_servers:
        from shipwheel.store.etcd import EtcdStore

        return EtcdStore(
            config.etcd_servers,
            ca_file=config.etcd_cafile,
            cert_file=config.etcd_certfile,
            key_file=config.etcd_keyfile,
        )
    from shipwheel.store.sqlite import SqliteStore

    return SqliteStore(config.data_file, clock=clock)
