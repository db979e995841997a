"""Where binaries and configs lie when they are installed; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tfkd*"]), "tfkd.configs", "tfkd_tools"],
    package_dir={"tfkd.configs": "configs", "tfkd_tools": "tools"},
)
