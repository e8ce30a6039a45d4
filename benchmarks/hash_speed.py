"""What hashing costs: sha256 from the standard library beside blake3, and beside encoding the same values as Parquet.

docs/decisions/hash-algorithm.md rests on these figures.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import time
from collections.abc import Callable

import numpy as np
import polars as pl

from benchmarks.figures import Figure, median, peer_python

BLAKE3 = "blake3==1.0.11"
SIZE = 256_000_000
COLUMNS = 20
ROWS = SIZE // 8 // COLUMNS
PROBE = f"""
import time
from blake3 import blake3
data = bytes(range(256)) * ({SIZE} // 256)
takes = []
for _ in range(5):
    start = time.process_time()
    blake3(data, max_threads=1).digest()
    takes.append(time.process_time() - start)
print(sorted(takes)[2])
"""
Column = Callable[[np.random.Generator], np.ndarray]
KINDS: dict[str, Column] = {
    "floats of full precision": lambda rng: rng.normal(size=ROWS),
    "floats of 3 decimals": lambda rng: rng.normal(size=ROWS).round(3),
    "integers below a million": lambda rng: rng.integers(0, 10**6, ROWS),
    "integers below ten": lambda rng: rng.integers(0, 10, ROWS),
}


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of a piece of work, all threads of this process counted."""
    start = time.process_time()
    work()
    return time.process_time() - start


def encode_cpu_s(column: Column) -> float:
    """CPU seconds of writing SIZE bytes of such columns as Parquet (zstd-1) to memory."""
    rng = np.random.default_rng(7)
    frame = pl.DataFrame({f"c{number}": column(rng) for number in range(COLUMNS)})
    return median(
        lambda: cpu_s(lambda: frame.write_parquet(io.BytesIO(), compression="zstd", compression_level=1)), 3
    )


def measure(*, peers: bool) -> list[Figure]:
    data = bytes(range(256)) * (SIZE // 256)
    hash_s = median(lambda: cpu_s(lambda: hashlib.sha256(data).digest()), 5)
    mb, what = SIZE / 1e6, "sha256 of memory, a CPU second"
    if peers:
        probe = [peer_python("blake3", BLAKE3), "-c", PROBE]
        done = subprocess.run(probe, capture_output=True, text=True, check=True)
        sha256 = Figure(what, mb / hash_s, "MB", peer=BLAKE3, peer_value=mb / float(done.stdout))
    else:
        sha256 = Figure(what, mb / hash_s, "MB", reason="left out with --no-peer")
    reason = "encoding is set beside the hash of the same run"
    return [
        sha256,
        *(
            Figure(
                f"CPU of Parquet over CPU of sha256, {kind}",
                encode_cpu_s(column) / hash_s,
                "x",
                reason=reason,
            )
            for kind, column in KINDS.items()
        ),
    ]
