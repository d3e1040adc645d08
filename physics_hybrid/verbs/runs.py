"""What became of the runs: a leaderboard, what differs between two, which is kept as what.

    python -m physics_hybrid runs list [FOLDER] [--sort KEY] [--filter KEY=VALUE ...]
        [--keys KEY ...] [--all] [--markdown | --json]
    python -m physics_hybrid runs show RUN
    python -m physics_hybrid runs compare A B [--all-metrics] [--figure FILE.png]
    python -m physics_hybrid runs promote RUN NAME [--against OTHER]
    python -m physics_hybrid runs archive RUN ... --yes

Without a word it is `list`. RUN is a folder, or a name below --folder (runs). Everything is read
from the files of the runs: one that was moved, or whose data are gone, is listed like any other.

list: best first, problem by problem; KEY is a column, or a key of the configuration. compare: keys
that differ, metrics with intervals over the samples that both were tested on, both curves in one
figure. promote: conf/experiment/NAME.yaml, which trains the same configuration again. archive: to
FOLDER/archive.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from physics_hybrid.command_line import CONF, leave_with_the_reader, readable_errors


def main(arguments: list[str]) -> None:
    asked = _parser().parse_args(arguments or ["list"])
    leave_with_the_reader()
    with readable_errors():
        asked.act(asked)


def _list(asked: argparse.Namespace) -> None:
    from physics_hybrid.run import ledger

    runs = ledger.runs_below(asked.place or asked.folder, archived=asked.all)
    runs = ledger.ordered(ledger.chosen(runs, asked.filter), asked.sort)
    if asked.json:
        print(json.dumps([ledger.as_json(run, asked.keys) for run in runs], indent=1))
    elif runs:
        print(ledger.leaderboard(runs, asked.keys, asked.markdown))
    else:
        print("no runs")


def _show(asked: argparse.Namespace) -> None:
    from physics_hybrid.run import ledger
    from physics_hybrid.run.showing import shown

    print(shown(ledger.find(asked.run, asked.folder)))


def _compare(asked: argparse.Namespace) -> None:
    from physics_hybrid.run import ledger
    from physics_hybrid.run.comparison import compare

    runs = [ledger.find(word, asked.folder) for word in (asked.first, asked.second)]
    figure = asked.figure
    if figure is None:
        name = "_".join(run.name.replace("/", "-") for run in runs)
        figure = asked.folder / ledger.COMPARISONS / f"{name}.png"
    print(compare(runs[0], runs[1], figure, everything=asked.all_metrics))


def _promote(asked: argparse.Namespace) -> None:
    from physics_hybrid.run import ledger
    from physics_hybrid.run.promotion import promote

    against = ledger.find(asked.against, asked.folder) if asked.against else None
    path = promote(ledger.find(asked.run, asked.folder), asked.name, CONF, against)
    print(f"python train.py experiment={asked.name}")
    print(path)


def _archive(asked: argparse.Namespace) -> None:
    from physics_hybrid.run.archive import archive

    for path in archive(asked.runs, asked.folder, sure=asked.yes):
        print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--folder", type=Path, default=Path("runs"), help="where names of runs are looked up"
    )
    verbs = parser.add_subparsers(required=True, metavar="{list,show,compare,promote,archive}")

    def verb(name: str, act: object, about: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, parents=[common], help=about, description=about)
        made.set_defaults(act=act)
        return made

    listing = verb("list", _list, "the leaderboard")
    listing.add_argument("place", type=Path, nargs="?", help="instead of --folder: of a study, say")
    listing.add_argument("--sort", metavar="KEY", help="-KEY: from the largest")
    listing.add_argument("--filter", metavar="KEY=VALUE", nargs="+", default=[])
    listing.add_argument("--keys", metavar="KEY", nargs="+", default=[], help="columns more")
    listing.add_argument("--all", action="store_true", help="archived ones, too")
    how = listing.add_mutually_exclusive_group()
    how.add_argument("--markdown", action="store_true")
    how.add_argument("--json", action="store_true")

    show = verb("show", _show, "all that the files of a run tell")
    show.add_argument("run")

    compare = verb("compare", _compare, "two runs: keys, metrics, curves")
    compare.add_argument("first", metavar="A")
    compare.add_argument("second", metavar="B")
    compare.add_argument("--all-metrics", action="store_true", help="not the main one alone")
    compare.add_argument("--figure", type=Path, help="of both curves; else in FOLDER/comparisons")

    promote = verb("promote", _promote, "keep the configuration of a run as an experiment")
    promote.add_argument("run")
    promote.add_argument("name", help="of the experiment: a word")
    promote.add_argument("--against", metavar="OTHER", help="refuse a run that is worse than this")

    archive = verb("archive", _archive, "move runs out of the way")
    archive.add_argument("runs", nargs="+", metavar="RUN")
    archive.add_argument("--yes", action="store_true", help="else nothing is moved")
    return parser
