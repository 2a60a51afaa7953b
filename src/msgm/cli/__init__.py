"""The command line: words become specifications, the library does the work."""
