"""`python -m blip3o_mini` is the same as the console script `blip3o-mini`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
