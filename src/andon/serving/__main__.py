"""`python -m andon.serving`: one gateway process."""

import os
import sys

# One thread for each of these: a gateway is one thread, and the sums of a prediction must not depend on the machine.
for _name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from andon.serving.process import main  # noqa: E402  # the variables above are read when polars and numpy are imported

sys.exit(main())
