"""Data on its way in: sources, contracts, dataset versions, the split and reference profiles."""

from andon.data.changes import CellDiff, TableDiff, diff_cells, diff_tables
from andon.data.contracts import ColumnRule, Contract, from_toml, infer, read_contract, signature, to_toml
from andon.data.datasets import commit_dataset, latest_version, open_version, read_version, version_node
from andon.data.profiles import (
    TableProfile,
    build_profile,
    count_rows,
    distances,
    window_distances,
    window_start,
)
from andon.data.sources import NULLS, read_source, redact
from andon.data.split import Split, split
from andon.data.validation import FailingRow, Report, Violation, check, decode_report
from andon.data.versions import (
    Index,
    Manifest,
    Table,
    commit_table,
    open_table,
    read_manifest,
    read_table,
    verify_table,
)

__all__ = [
    # sources
    "NULLS",
    "read_source",
    "redact",
    # contracts
    "ColumnRule",
    "Contract",
    "FailingRow",
    "Report",
    "Violation",
    "check",
    "decode_report",
    "from_toml",
    "infer",
    "read_contract",
    "signature",
    "to_toml",
    # versions
    "CellDiff",
    "Index",
    "Manifest",
    "Table",
    "TableDiff",
    "commit_dataset",
    "commit_table",
    "diff_cells",
    "diff_tables",
    "latest_version",
    "open_table",
    "open_version",
    "read_manifest",
    "read_table",
    "read_version",
    "verify_table",
    "version_node",
    # training
    "Split",
    "TableProfile",
    "build_profile",
    "count_rows",
    "distances",
    "split",
    "window_distances",
    "window_start",
]
