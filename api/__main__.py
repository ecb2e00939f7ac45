"""`python -m undertow`: the command line of the interpreter that is named."""

from .cli import main

main()
