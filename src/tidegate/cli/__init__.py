"""The command line: translation between a terminal and the parts that do the work."""
