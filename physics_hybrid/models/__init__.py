"""Networks. They know no physics: no sigma, no volt in here."""

from pathlib import Path

#: Classes that have moved to their problem are still found here by the files that name them.
__path__.append(str(Path(__file__).parents[1] / "old_names" / "models"))
