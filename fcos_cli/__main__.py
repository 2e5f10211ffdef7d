"""`python -m fcos_cli` is `fcos`."""

from fcos_cli.cli import main

if __name__ == "__main__":
    main()
