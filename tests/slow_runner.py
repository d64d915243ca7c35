"""The `flowsep` command with a separator that takes minutes, for the test that interrupts it from outside."""

import sys
from pathlib import Path

from flowsep import checkpoint
from flowsep.cli import main
from tests.fakes import FakeSeparator

checkpoint.find_model = lambda name: Path("no-weights")
checkpoint.load_separator = lambda folder, device="auto", dtype=None: FakeSeparator(delay=60.0)
sys.exit(main())
