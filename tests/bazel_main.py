"""Runs pytest on the files named on the command line: the `main` of every Bazel test target."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-p", "no:cacheprovider", *sys.argv[1:]]))
