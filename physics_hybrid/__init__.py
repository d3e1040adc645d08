"""Neural operators that learn corrections to physics. `load_pretrained()` gives the one that is
shipped; importing this package imports nothing heavy.
"""

from pathlib import Path

#: `physics_hybrid.potential...`, `python -m physics_hybrid benchmark` and the like, for one
#: release.
__path__.append(str(Path(__file__).parent / "old_names"))


def load_pretrained(device="cpu", folder=None):
    """The shipped operator, ready to predict: a `potential.predictor.Predictor`.

    Parameters
    ----------
    device : str or torch.device
        Where it runs: cpu, cuda, mps.
    folder : path or None
        What `python -m physics_hybrid ship` wrote; None: the model inside this package.

    Raises
    ------
    FileNotFoundError
        No model is shipped there.
    """
    from physics_hybrid.problems.potential.predictor import Predictor

    return Predictor.load(folder, device)
