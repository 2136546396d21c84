"""The command line: arguments -> a configuration with absolute paths, and a configuration -> its command."""
