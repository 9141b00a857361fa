"""`python -m klip` is `klip`; torchrun starts it as a module."""

from klip.cli import main

main()
