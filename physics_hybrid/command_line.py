"""What a person sees of the command line: words checked with a suggestion, errors in one line.

Light to import: `--help` and a typo must not wait for torch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from physics_hybrid.configuration import check_overrides, options_page, resolved, swept
from physics_hybrid.kinds import UsageError


def _conf() -> Path:
    """The folder of the configuration: inside an installed package, beside it in a clone."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


#: Every choice: one folder a group, a comment for each key.
CONF = _conf()

#: Flags of Hydra that show something, or choose another configuration than ours.
FLAGS_OF_HYDRA = {
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--config-dir",
    "-cd",
    "--help",
    "-h",
    "--hydra-help",
    "--version",
    "--info",
    "-c",
    "--cfg",
    "--shell-completion",
    "-sc",
}


def run(work: Callable[[dict[str, Any]], object], folder: Path, name: str) -> None:
    """Check the command line, then do `work` with the resolved configuration; with --multirun, with
    one after the other.

    A job of several that fails does not keep the others from running; those that failed are listed
    at the end, and the exit status is 1.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    os.environ["MPLBACKEND"] = "Agg"  # no program here has a display, whatever a notebook has set
    arguments = sys.argv[1:]
    if {a.split("=")[0] for a in arguments if a.startswith("-")} & FLAGS_OF_HYDRA:
        leave_with_the_reader()
    else:
        with readable_errors():
            sys.argv[1:] = check_overrides(folder, name, arguments)
    failures: list[str] = []

    def job(config: Any) -> None:
        about = HydraConfig.get()
        words = list(about.overrides.task)
        if about.mode != RunMode.MULTIRUN:
            with readable_errors():
                work(resolved(folder, name, config, words))
            return
        keys = swept(sys.argv[1:])
        own = [word for word in words if word.split("=")[0] in keys]
        with _noted(" ".join(own) or f"job {about.job.num}", failures):
            work(resolved(folder, name, config, words))

    OmegaConf.register_new_resolver(
        "options", lambda program: options_page(folder, program), replace=True
    )
    hydra.main(version_base="1.3", config_path=str(folder), config_name=name)(job)()
    if failures:
        print("\n".join([f"error: {len(failures)} failed:", *failures]), file=sys.stderr)
        sys.exit(1)


def leave_with_the_reader() -> None:
    """For pages: where what reads our output ends, as `head` does, we end, too, without a word."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _line_of(error: BaseException) -> str:
    """An error as a person reads it: Hydra wraps what a constructor raises."""
    from hydra.errors import HydraException

    while isinstance(error, HydraException) and error.__cause__ is not None:
        error = error.__cause__
    return f"error: {error}"


def _is_for_people(error: Exception) -> bool:
    """Whether the text of an error is enough; PHYSICS_HYBRID_TRACEBACK=1 shows where all arose."""
    from hydra.errors import HydraException

    if os.environ.get("PHYSICS_HYBRID_TRACEBACK") or type(error).__module__.startswith("torch"):
        return False
    return isinstance(error, (ValueError, OSError, RuntimeError, HydraException))


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Errors that concern the user's input, files or machine become one line, and exit status 1, or
    2 where something was mistyped.

    PHYSICS_HYBRID_TRACEBACK=1 shows where they arose.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if not _is_for_people(error):
            raise
        print(_line_of(error), file=sys.stderr, flush=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)


@contextlib.contextmanager
def readable_warnings() -> Iterator[None]:
    """Warnings become a line each, without the place in the code, and none comes twice."""
    import warnings

    said: set[str] = set()

    def show(message: Warning | str, *about: Any, **more: Any) -> None:
        """Print what was not said yet."""
        if str(message) not in said:
            said.add(str(message))
            print(f"warning: {message}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _noted(job: str, failures: list[str]) -> Iterator[None]:
    """As `readable_errors`, for one job of several: it is put on a list, and nothing ends."""
    try:
        yield
    except Exception as error:
        if not _is_for_people(error):
            traceback.print_exc()
        line = _line_of(error)
        print(line, file=sys.stderr, flush=True)
        failures.append(f"{job}: {line.removeprefix('error: ')}")
