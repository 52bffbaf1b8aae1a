"""``python -m sigconv.cli``."""

import sys

from sigconv.cli import main

if __name__ == "__main__":
    sys.exit(main())
