"""Run the command line with ``python -m balloon_plugin``."""

from __future__ import annotations

import sys

from balloon_plugin.cli import main

sys.exit(main())
