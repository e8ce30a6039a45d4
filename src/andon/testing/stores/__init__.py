"""What every metadata store must do, as tests: run them on yours by a class and one fixture.

    class TestMine(StoreConformance):
        @pytest.fixture
        def place(self, tmp_path):
            return Place(Layout(tmp_path / ".andon"), Settings())

`place` is an empty workspace that can be opened by several processes; anything picklable with `open() -> Store` will do.
"""

from andon.testing.stores.folders import CounterChecks, FolderChecks
from andon.testing.stores.labels import LabelChecks
from andon.testing.stores.leases import LeaseChecks
from andon.testing.stores.ledger import LedgerChecks
from andon.testing.stores.metrics import MetricChecks
from andon.testing.stores.nouns import NounChecks
from andon.testing.stores.place import Openable, Place
from andon.testing.stores.processes import ProcessChecks
from andon.testing.stores.searching import SearchChecks
from andon.testing.stores.selecting import SelectChecks
from andon.testing.stores.transactions import TransactionChecks

__all__ = ["Openable", "Place", "StoreConformance"]


class StoreConformance(
    NounChecks, SelectChecks, MetricChecks, LabelChecks, FolderChecks, CounterChecks, LedgerChecks, LeaseChecks,
    SearchChecks, TransactionChecks, ProcessChecks,
):  # fmt: skip
    """All checks. A subclass gives the fixture `place`."""
