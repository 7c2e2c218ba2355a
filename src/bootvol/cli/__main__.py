"""``python -m bootvol.cli``."""

from bootvol.cli import main

main()
