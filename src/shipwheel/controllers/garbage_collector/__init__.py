"""Garbage collection: what belongs to something that is gone goes too, for every kind there is.

`graph` is the pure part: it takes in observed objects and says what to look at. `controller` watches all kinds,
asks the server before it acts, and deletes, orphans and finalizes.
"""

from shipwheel.controllers.garbage_collector.controller import GarbageCollector

__all__ = ["GarbageCollector"]
