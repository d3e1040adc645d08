"""The benchmark puts networks, solvers and finite elements on one scale; nothing here is held to a
time.
"""

import json
import math

import pytest
import torch

from physics_hybrid.cluster.machine import initialize
from physics_hybrid.evidence import roofline
from physics_hybrid.models.fno import ResidualFNO
from physics_hybrid.models.spectral import SpectralConv3d
from physics_hybrid.problems.potential.evidence import benchmark
from physics_hybrid.problems.potential.evidence.benchmark_contenders import from_checkpoint
from physics_hybrid.problems.potential.evidence.benchmark_measures import speeds
from physics_hybrid.problems.potential.evidence.benchmark_report import BONES, tables
from tests.conftest import tiny_overrides

GRID = (16, 12, 12)


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    overrides = [
        o
        for o in tiny_overrides(
            folder, ("limbs", "fno"), ["data.batch_size=2", "model.statistics_samples=2"]
        )
        if not o.startswith(("data.grid=", "data.samples_per_epoch=", "training.epochs="))
    ]
    plan = benchmark.Plan(
        checkpoints=[
            trained(),
            trained("model.baseline.kind=coarse_solve", "training.epochs=1"),
        ],
        overrides=overrides,
        grid=GRID,
        samples=3,
        batch_sizes=[1, 3],
        tolerances=[1e-1, 1e-3, 1e-6],
        element_tolerances=[1e-6],
        element_samples=1,
        budget_steps=2,
        models=["fno", "unet", "fno_neuraloperator"],
        grids=[(16, 12, 12), (24, 16, 16), (4, 4, 4)],
        repeats=2,
        cpu_threads=1,
    )
    result = benchmark.run_benchmark(plan)
    benchmark.write(result, folder)
    return folder, result


@pytest.mark.slow
def test_every_contender_is_measured_on_the_same_limbs(made, trained):
    folder, result = made
    assert json.loads((folder / "benchmark.json").read_text()) == json.loads(json.dumps(result))
    rows = {r["name"]: r for r in result["rows"]}
    kinds = [r["kind"] for r in rows.values()]
    assert kinds.count("multigrid") == 3
    assert kinds.count("elements") == kinds.count("analytical") == 1
    assert kinds.count("network") >= 3
    errors = [
        rows[f"multigrid {t}"]["metrics"]["relative_l2"]["mean"] for t in ("0.1", "0.001", "1e-06")
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4
    # another discretisation of a coarse limb
    assert rows["scikit-fem + pyamg 1e-06"]["metrics"]["relative_l2"]["mean"] < 0.3
    assert rows["scikit-fem + pyamg 1e-06"]["samples"] == 1
    for row in result["rows"]:
        assert {"relative_l2", "rdm", "mag", "rdm_skin", "mag_skin"} <= set(row["metrics"])
        assert all(c["seconds"] > 0 and c["MB"] is None for c in row["cost"].values())
    run = rows[trained().name]
    # solved on half the grid: better than the closed form
    coarse = next(r for r in rows.values() if r["kind"] == "baseline")
    assert (
        coarse["metrics"]["relative_l2"]["mean"]
        < rows["analytical baseline"]["metrics"]["relative_l2"]["mean"]
    )
    assert run["checkpoint"] == str(trained())
    assert not run["trained_on_other_limbs"]
    assert run[BONES]["mean"] > 0
    assert set(run["cost"]) == {"1", "3"}
    assert rows["fno, 2 steps"]["training_samples"] == 4
    text = (folder / "benchmark.md").read_text()
    assert "| multigrid 0.1 (float32) |" in text
    assert "times faster" in text
    assert "over the floor" in text
    assert (folder / "benchmark.png").stat().st_size > 10_000


@pytest.mark.slow
def test_grids_that_a_network_cannot_take_are_left_out_of_its_cost(made, trained):
    grids = {(r["name"], r["grid"]) for r in made[1]["by_grid"]}
    assert (trained().name, "24x16x16") in grids
    assert (trained().name, "4x4x4") not in grids


def test_matched_accuracy_takes_the_loosest_tolerance_that_is_good_enough():
    def row(name, kind, error, times, **more):
        return {
            "name": name,
            "kind": kind,
            "metrics": {"relative_l2": {"mean": error}},
            "cost": {str(i): {"seconds": t} for i, t in enumerate(times)},
            **more,
        }

    rows = [
        row("a", "network", 0.01, [2.0, 1.0], cpu_seconds=4.0),
        row("b", "network", 1e-9, [1.0]),
        row("m1", "multigrid", 0.1, [2.0], tolerance=1e-1),
        row("m2", "multigrid", 0.009, [5.0, 3.0], tolerance=1e-2),
        row("m3", "multigrid", 1e-4, [9.0], tolerance=1e-3),
        row("f", "elements", 0.03, [100.0], tolerance=1e-6),
    ]
    a, b = speeds(rows)
    assert (
        a["multigrid"],
        a["times_multigrid"],
        a["times_elements"],
        a["times_elements_on_the_same_cpu"],
    ) == ("m2", 3.0, 100.0, 25.0)
    assert b["multigrid"] is None
    assert b["times_multigrid"] is None


@pytest.mark.slow
def test_other_limbs_are_named_and_other_ends_refused(trained, tmp_path):
    from physics_hybrid.evidence.bench import configuration
    from physics_hybrid.problem import Place
    from physics_hybrid.problems.potential.problem import PotentialRecipe

    def built(*overrides):
        config = configuration(tiny_overrides(tmp_path, ("limbs", "fno"), overrides))
        return PotentialRecipe(config).open(Place(torch.device("cpu"))), config

    assert from_checkpoint(trained(), *built("data.phantom.bone_shape=tibia_fibula")).about[
        "trained_on_other_limbs"
    ]
    with pytest.raises(ValueError, match="problem.ends=grounded, and this benchmark has sink"):
        from_checkpoint(trained(), *built("problem.ends=sink"))
    with pytest.raises(ValueError, match="data.sigma_components=3"):
        from_checkpoint(trained(), *built("data.sigma_components=6"))


def test_operations_and_bytes_of_the_fno_are_those_of_the_formulas():
    width, depth, modes, batch = 6, 2, (3, 2, 3), 2
    net, N, M = ResidualFNO(5, 1, width, depth, list(modes)), math.prod(GRID), 4 * math.prod(modes)
    moved, operations = roofline.count(net, 5, batch, GRID)
    assert moved == 4 * batch * N * (5 + 1) + depth * (4 * batch * N * 3 * width + 8 * width**2 * M)
    D, H, W = GRID
    transform = (
        2.5 * N * math.log2(W)
        + 5 * D * H * modes[2] * math.log2(H)
        + 5 * D * 2 * modes[1] * modes[2] * math.log2(D)
    )
    pointwise = 2 * batch * N * (5 * width + width**2 + depth * 2 * width**2 + width**2 + width)
    assert operations == pytest.approx(
        pointwise + depth * (batch * 2 * width * transform + 8 * batch * width**2 * M)
    )
    assert (
        sum(
            p.numel()
            for m in net.modules()
            if isinstance(m, SpectralConv3d)
            for p in m.parameters()
        )
        * 4
        == depth * 8 * width**2 * M
    )


def test_operations_of_a_network_of_convolutions_are_counted_where_they_are_done():
    """Of a U-Net most are on its finest level; what has weights elsewhere is not counted."""
    net = torch.nn.Sequential(
        torch.nn.Conv3d(5, 4, 3, padding=1),
        torch.nn.Conv3d(4, 8, 3, stride=2, padding=1),
        torch.nn.GroupNorm(2, 8),
        torch.nn.ConvTranspose3d(8, 1, 2, stride=2),
    )
    N = 2 * math.prod(GRID)
    moved, operations = roofline.count(net, 5, 2, GRID)
    assert moved == 4 * N * (5 + 1)
    assert operations == 2 * N * (27 * 5 * 4 + 27 * 4 * 8 / 8 + 8 * 1)
    net.append(torch.nn.BatchNorm3d(1))
    assert roofline.count(net, 5, 2, GRID) is None


def test_peaks_of_this_machine_make_a_floor():
    peak = roofline.peaks(initialize("cpu"), elements=2**18, side=64)
    assert peak["bandwidth"] > 1e7
    assert peak["matmul"] > 1e7
    assert roofline.floor(peak["bandwidth"], 0, peak) == pytest.approx(1)
    assert roofline.floor(0, 2 * peak["matmul"], peak) == pytest.approx(2)


def test_the_rival_fno_keeps_the_same_modes_as_ours():
    pytest.importorskip("neuralop")
    from physics_hybrid.models.neuraloperator import NeuralOperatorFNO

    torch.manual_seed(0)
    net = NeuralOperatorFNO(5, 1, 6, 2, [3, 2, 3])
    weight = net.net.fno_blocks.convs[0].weight
    assert tuple(weight.shape) == (6, 6, 6, 4, 3)
    assert net(torch.randn(2, 5, *GRID)).shape == (2, 1, *GRID)
    with pytest.raises(ValueError, match="Fourier modes along H"):
        net.check_grid((16, 3, 12))


def test_the_rival_uno_halves_the_grid_once_and_comes_back():
    pytest.importorskip("neuralop")
    from physics_hybrid.models.neuraloperator import NeuralOperatorUNO

    torch.manual_seed(0)
    net = NeuralOperatorUNO(5, 1, 4, 4, [4, 4, 4])
    seen = []
    for block in net.net.fno_blocks:
        block.register_forward_hook(lambda block, given, out: seen.append(tuple(out.shape[1:])))
    x = torch.randn(1, 5, 16, 12, 12)
    assert net(x).shape == (1, 1, 16, 12, 12)
    assert seen == [(8, 8, 6, 6)] * 3 + [(4, 16, 12, 12)]
    with pytest.raises(ValueError, match="even sides"):
        net.check_grid((16, 13, 12))


@pytest.mark.slow
def test_its_page_takes_table_and_figure(made, tmp_path):
    from physics_hybrid.problems.potential.evidence.pages import pictured

    text = pictured(made[0] / "benchmark.json", "benchmark", tables, "caption", tmp_path)
    assert "| multigrid 0.1 (float32) |" in text
    assert (tmp_path / "docs/benchmark.png").exists()
