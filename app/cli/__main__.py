"""`python -m app.cli`: the `lethe` command without its script."""

from app.cli import main

main()
