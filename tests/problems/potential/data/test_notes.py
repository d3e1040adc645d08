"""What is said before a training, and words that stand for a group of keys."""

import numpy as np
import pytest
import torch

from physics_hybrid.command_line import UsageError, check_overrides
from physics_hybrid.models.fno import ResidualFNO
from physics_hybrid.problem import Place
from physics_hybrid.problems.potential.baseline import CoarseSolveBaseline, PointSourceBaseline
from physics_hybrid.problems.potential.bodies.label_files import LabelVolume
from physics_hybrid.problems.potential.bodies.segmentation import Segmentations
from physics_hybrid.problems.potential.bodies.tissue_table import read_table
from physics_hybrid.problems.potential.data.limb_data import LimbData
from physics_hybrid.problems.potential.data.splits import fractions_of
from physics_hybrid.problems.potential.data.stream import Solver
from physics_hybrid.problems.potential.geometry import GeometryEncoder
from physics_hybrid.problems.potential.hybrid import HybridWrapper, feature_channels
from physics_hybrid.problems.potential.learning import Potential
from physics_hybrid.problems.potential.losses import PotentialLoss
from physics_hybrid.problems.potential.metrics import Metrics
from physics_hybrid.problems.potential.problem import build_data
from tests.conftest import ROOT, composed

CPU = torch.device("cpu")
SPLITS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def bar():
    """Fat and muscle in air, with an implant. (D, H, W)"""
    labels = np.zeros((16, 12, 12), dtype=np.uint8)
    labels[:, 2:10, 2:10] = 2
    labels[:, 3:9, 3:9] = 3
    labels[5:11, 7, 7] = 9
    return labels


def potential(folder, implant):
    """A body whose implant conducts so many S/m."""
    table = read_table(
        {
            "air": {"label": 0, "sigma": 0},
            "fat": {"label": 2, "sigma": 0.05},
            "muscle": {"label": 3, "sigma": 0.3},
            "implant": {"label": 9, "sigma": implant},
        }
    )
    volume = LabelVolume(bar(), np.full(3, 0.008), "bar.npy", f"{implant}")
    data = LimbData(
        limbs=Segmentations([volume], table, 0, SPLITS),
        solver=Solver(),
        grid=(16, 12, 12),
        batch_size=2,
        seed=0,
        device=CPU,
        folder=str(folder),
        samples_per_epoch=2,
        validation_samples=2,
    )
    return Potential(data, PotentialLoss({"mse": 1.0}), Metrics(), Place(CPU))


def network(baseline):
    backbone = ResidualFNO(feature_channels(3, 4), 1, width=4, depth=1, modes=[2, 2, 2])
    return HybridWrapper(backbone, GeometryEncoder(4, 4, 1, 1), baseline)


@pytest.mark.parametrize("implant", [1e5, 1e7])
def test_metal_in_the_mean_is_told_before_training_with_the_key_that_helps(tmp_path, implant):
    problem = potential(tmp_path, implant)
    (said,) = problem.notes(network(PointSourceBaseline()))
    assert "WARNING: the baseline is" in said
    assert f"sigma goes up to {implant:.3g} S/m" in said
    assert "model.baseline.sigma_ref=local" in said
    assert problem.notes(network(PointSourceBaseline(sigma_ref="local"))) == []
    assert problem.notes(network(CoarseSolveBaseline(2))) == []
    (said,) = problem.notes(network(PointSourceBaseline(sigma_ref=1e-4)))  # too large, too
    assert "sigma_ref=local" in said


def test_nothing_is_said_of_tissue(tmp_path):
    assert potential(tmp_path, 1.5).notes(network(PointSourceBaseline())) == []


# --- words that stand for a group of keys


@pytest.mark.parametrize(
    "given",
    ["80/10/10", "0.8/0.1/0.1", {"train": 80, "validation": 10, "test": 10}],
)
def test_splits_are_taken_as_people_write_them(given):
    assert fractions_of(given) == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1})


@pytest.mark.parametrize("given", ["80", "a/b/c", "50/30/10/10", "80/10/20", "-10/100/10", ""])
def test_splits_that_are_none_are_refused(given):
    with pytest.raises(ValueError, match="data.splits must be"):
        fractions_of(given)


def test_no_test_split_is_nothing_to_test():
    assert fractions_of("80/20") == {"train": 0.8, "validation": 0.2}


def accepted(*words):
    check_overrides(ROOT / "conf", "config", list(words))


def test_a_word_may_stand_for_splits_and_tissues_and_for_no_other_group():
    accepted("data=labels", "data.tissues=mine.yaml", "data.splits=80/10/10")
    accepted("data=labels", "data.source_tissues=muscle")
    accepted("data=files", "data.splits=90/10")
    with pytest.raises(UsageError, match="a group of keys is expected"):
        accepted("training.clipping=word")


#: As somebody types it: numbers without a point, the heading of labels.yaml.
TABLE = """
tissues:
  air: {label: 0, sigma: 0}
  subcutis: {label: 2, sigma: 5e-2}
  muscle:
    label: [3, 9]
    sigma: [1, 0.25, 0.25]
"""


def labelled(folder, *words):
    np.save(folder / "bar.npy", bar())
    words = ["data=labels", f"data.path={folder}/bar.npy", "data.spacing=[8e-3,8e-3,8e-3]", *words]
    config = composed(folder, "x", words, ("limbs", "fno"))
    return build_data(config, Place(CPU)).limbs


def test_a_table_of_tissues_comes_from_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text(TABLE)
    words = ["data.source_tissues=muscle", "data.splits=80/20"]
    bodies = labelled(tmp_path, f"data.tissues={tmp_path}/mine.yaml", *words)
    assert [t.name for t in bodies.table] == ["air", "subcutis", "muscle"]
    assert bodies.sigma.tolist() == [[0, 0, 0], [0.05] * 3, [1, 0.25, 0.25]]
    assert bodies.sources.tissues == ["muscle"]
    assert [bodies.available(part) > 0 for part in ("train", "validation", "test")] == [
        True,
        True,
        False,
    ]
    before = bodies.content("train")
    (tmp_path / "mine.yaml").write_text(TABLE.replace("5e-2", "6e-2"))
    changed = labelled(tmp_path, f"data.tissues={tmp_path}/mine.yaml", *words).content("train")
    assert [name for name, _ in changed] == [name for name, _ in before] == ["bar.npy"]
    assert changed != before  # a run does not go on with it


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("a: [", "is no YAML file of tissues"),
        ("- 1\n- 2", "must hold a line for each tissue"),
        ("", "must hold a line for each tissue"),
        ("muscle: 3", "data.tissues.muscle must be {label"),
    ],
)
def test_a_file_that_holds_no_table_is_named(tmp_path, text, said):
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        labelled(tmp_path, f"data.tissues={tmp_path}/mine.yaml")
    assert "\n" not in str(error.value)


def test_keys_of_labels_reach_the_body(tmp_path):
    """NaN outside and a rind of 1e-9 S/m are air where the user says so."""
    volume = np.where(bar() > 0, bar(), np.nan)
    volume[:, 2, :][volume[:, 2, :] == 2] = 1
    table = "{fat: {label: 2, sigma: 0.05}, muscle: {label: [3, 9], sigma: 0.3}}"
    table = table[:-1] + ", rind: {label: 1, sigma: 1.0e-9}, air: {label: 0, sigma: 0}}"
    (tmp_path / "t.yaml").write_text(table)
    words = ["data.nan_is_air=true", "data.air_below=1e-6", f"data.tissues={tmp_path}/t.yaml"]
    np.save(tmp_path / "nan.npy", volume)
    bodies = labelled(tmp_path, *words, f"data.path={tmp_path}/nan.npy")
    assert [t.name for t in bodies.table] == ["air", "fat", "muscle"]
    assert (bodies.bodies[0].index > 0).sum() == (bar() > 0).sum() - (volume == 1).sum()
    assert "taken as air, label 0" in bodies.notes[0]
