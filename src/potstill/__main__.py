"""`python -m potstill`, and the `potstill` command."""

import os
import sys


def main() -> None:
    """Run the command line. Torch reads these variables once, when it is imported, so they come first."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from potstill.cli import run

    sys.exit(run())


if __name__ == "__main__":
    main()
