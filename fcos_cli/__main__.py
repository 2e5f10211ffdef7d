"""The program `fcos`, also run as `python -m fcos_cli`. Ctrl-C is handled from here on, during imports too."""

import contextlib
import os
import sys

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after SIGINT and SIGTERM."""


def main() -> None:
    """Run the command line and exit."""
    try:
        from fcos_cli.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        _leave(INTERRUPTED)
    except SystemExit as end:
        if end.code in (INTERRUPTED, TERMINATED):
            _leave(end.code)
        raise


def _leave(code: int) -> None:
    """Exit at once. Python would wait for threads, which may hang after a signal (see `threads.py`), and at another
    Ctrl-C print tracebacks or die by the signal.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
