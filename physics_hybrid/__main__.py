"""python -m physics_hybrid VERB [arguments]: all that train.py and evaluate.py do, and what
measures it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys

from physics_hybrid import verbs
from physics_hybrid.command_line import leave_with_the_reader


def known() -> dict[str, str]:
    """Verb, as it is typed -> module."""
    names = (module.name for module in pkgutil.iter_modules(verbs.__path__))
    return {name.replace("_", "-"): f"{verbs.__name__}.{name}" for name in names}


def page() -> str:
    """The help: a line a verb, the first of its module."""
    lines = ["usage: python -m physics_hybrid VERB [arguments]", ""]
    for verb, module in known().items():
        first = (importlib.import_module(module).__doc__ or "").splitlines()[0]
        lines.append(f"  {verb:18} {first}")
    return "\n".join([*lines, "", "python -m physics_hybrid VERB --help says more."])


def main(words: list[str]) -> None:
    if not words or {"-h", "--help"} & {*words}:
        leave_with_the_reader()
    if not words or words[0] in ("-h", "--help"):
        print(page())
        return
    verb, *arguments = words
    if verb not in known():
        near = difflib.get_close_matches(verb, known(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(
            f"error: there is no verb {verb!r}{hint} (python -m physics_hybrid --help)",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.argv[0] = (
        f"python -m physics_hybrid {verb}"  # what messages and usage lines call the program
    )
    importlib.import_module(known()[verb]).main(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
