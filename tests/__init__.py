"""The test suite; a package so that settings and services have names."""
