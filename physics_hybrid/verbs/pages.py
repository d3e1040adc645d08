"""Write the tables and pictures of README and docs from the files of runs and measurements."""


def main(arguments: list[str]) -> None:
    from physics_hybrid.problems.potential.evidence import pages

    pages.main(arguments)
