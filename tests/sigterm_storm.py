"""SIGTERM to the launcher at random moments: every time a checkpoint that loads, the documented
exit, no epoch lost.

    python tests/sigterm_storm.py [--times 20] [--seed 0]

One training of two ranks under torchrun is stopped and started again and again, each time from
where it was: the moments are counted from the start of the launcher (every third), or from when the
ranks have met, which on a busy machine takes as long as it likes. Prints a line for each stop and
exits 0 only if all held, and a state was saved at least once. (That a training stopped and started
again gives the bits of one never stopped: test_ranks.py.)
"""

import argparse
import functools
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from physics_hybrid.training import checkpoint
from tests.cluster.test_ranks import start, wait_for


def written_since(path: Path, moment: float) -> bool:
    return path.exists() and path.stat().st_mtime > moment


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, wrong = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = (
            "data.batch_size=2",
            f"data.samples_per_epoch={4000 * arguments.times}",
            "training.epochs=2",
            "training.checkpoint_every=10000",
        )
        run = folder / "runs/storm"
        before = states = 0
        for number in range(arguments.times):
            started = time.time()
            process = start("torchrun", folder, "storm", *options)
            if number % 3:
                wait_for(functools.partial(written_since, run / "config.yaml", started), process)
            delay = chance.uniform(0.5, 10 if number % 3 else 25)
            try:
                output, _ = process.communicate(timeout=delay)
                wrong.append(f"{number}: ended by itself\n{output}")
                break
            except subprocess.TimeoutExpired:
                process.terminate()
            asked = time.monotonic()
            output, _ = process.communicate(timeout=120)
            state = checkpoint.load_latest(run) if run.is_dir() else None
            step = state["progress"]["step"] if state else 0
            saved = "SIGTERM: state saved" in output
            print(
                f"stop {number + 1:2d}, {delay:4.1f} s after"
                f" {'the ranks met' if number % 3 else 'the start'}: exit {process.returncode},"
                f" step {before} -> {step}, left in {time.monotonic() - asked:.1f} s",
                flush=True,
            )
            if step < before:
                wrong.append(f"{number}: went back from step {before} to {step}")
            # 143, -15: nothing had started yet that could save; 86: a rank heard so from the other
            # before the signal reached it
            if process.returncode not in (85, 86, 143, -15):
                wrong.append(f"{number}: exit {process.returncode}\n{output[-3000:]}")
            if "training:" in output and not saved:
                wrong.append(f"{number}: was training and did not save\n{output[-3000:]}")
            if saved and process.returncode != 85:
                wrong.append(f"{number}: saved, and the exit status is {process.returncode}")
            before, states = step, states + saved
        if not states and arguments.times > 2:
            wrong.append("no stop met training: nothing was shown")
        print(
            f"{arguments.times} stops, step {before} reached; "
            + ("all held" if not wrong else "\n".join(wrong))
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
