"""Everything that tests: mirrors the code, plus `clients`, `conformance`, `tidy`, `benchmarks`."""
