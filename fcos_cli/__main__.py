"""The program `fcos`, also run as `python -m fcos_cli`. Ctrl-C is handled from here on, during imports too."""

import signal
import sys


def main() -> None:
    """Run the command line and exit."""
    try:
        from fcos_cli.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    finally:  # nothing is left to be saved, so another Ctrl-C may end the process at once
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
