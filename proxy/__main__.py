"""`python -m proxy` is `trunkline`."""

from proxy.cli import main

main()
