"""`python -m flowsep` is the `flowsep` command."""

import sys

from flowsep.cli import main

sys.exit(main())
