"""The packages; all else is in pyproject.toml.

conf/ lies at the top of a clone, and inside a wheel.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["physics_hybrid*"]), "physics_hybrid.conf"],
    package_dir={"physics_hybrid.conf": "conf"},
)
