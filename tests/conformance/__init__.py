"""What every engine must do, and the runner of other people's suites (`make conformance`)."""
