"""What the commands of `trunkline` do; imported only when a command runs, so that the command line starts at once."""
