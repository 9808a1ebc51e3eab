"""One command a file; Django takes its name from the file."""
