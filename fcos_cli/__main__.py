"""The program `fcos`, also run as `python -m fcos_cli`. Ctrl-C is handled from here on, during imports too."""

import contextlib
import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit."""
    try:
        from fcos_cli.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        _leave()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _leave()
        raise


def _leave() -> None:
    """Exit at once. Python would wait for threads, and at another Ctrl-C print tracebacks or die by the signal."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
