"""The front door: the command line and what it prints. Nobody imports it."""
