"""`python -m potstill`, and the `potstill` command."""

import os
import sys


def main() -> None:
    """Run the command line. Torch reads these variables once, when it is imported, so they come first."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from potstill.cli import run

        code = run()
    except KeyboardInterrupt:  # so early that the modules were still being read
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
