"""`python -m wallaroo`: the command line."""

from wallaroo.cli.main import main

main()
