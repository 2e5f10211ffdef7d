"""Run `fcos` as `python -m fcos_cli`."""

from fcos_cli.cli import main

if __name__ == "__main__":
    main()
