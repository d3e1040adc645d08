"""States in files: every layout gives the same states, and what is broken is named."""

from __future__ import annotations

import re

import h5py
import numpy as np
import pytest

from physics_hybrid.problems.flavour.data.files import Layout, StateError, read
from physics_hybrid.problems.flavour.data.states import split
from physics_hybrid.problems.flavour.physics.fluxes import COMPONENTS, SPECIES
from tests.problems.flavour.states import random_states

N_TOT = 3e33


def healthy(count: int = 9) -> dict:
    """Keys of a file; equipartition of neutrinos and of antineutrinos keeps all sums."""
    before = random_states(count, 0.6).numpy() * N_TOT
    pairs = before.reshape(-1, 2, 3, 4).mean(axis=2, keepdims=True)
    after = np.repeat(pairs, 3, axis=2).reshape(-1, 6, 4)
    names = [f"run{i % 2}" for i in range(count)]
    return {
        "F_init": before,
        "F_true": after,
        "dirname": names,
        "sim_id": [*map(str, range(count))],
    }


def written(path, content: dict):
    with h5py.File(path, "w") as file:
        for key, values in content.items():
            file[key] = values
    return path


def test_axes_and_orders_are_found_or_named(tmp_path):
    content = healthy()
    plain = read(written(tmp_path / "a.h5", content), Layout())
    assert plain.names[3] == "run1-3"
    assert plain.families == ("all",) * 9
    assert plain.density.numpy() == pytest.approx(N_TOT)
    np.testing.assert_allclose(plain.before.numpy() * N_TOT, content["F_init"], rtol=1e-5)
    turned = {k: content[k].transpose(2, 0, 1) for k in ("F_init", "F_true")}
    other = read(written(tmp_path / "b.h5", {**content, **turned}), Layout(families="dirname"))
    assert (other.before == plain.before).all()
    assert other.families[:3] == ("run0", "run1", "run0")
    species, components = SPECIES[::-1], ("t", "x", "y", "z")
    order = {k: content[k][:, ::-1][..., [3, 0, 1, 2]] for k in ("F_init", "F_true")}
    layout = Layout(species=species, components=components)
    assert (
        read(written(tmp_path / "c.h5", {**content, **order}), layout).after == plain.after
    ).all()
    six = {k: healthy(6)[k] for k in ("F_init", "F_true")}  # six samples: sizes do not tell
    path = written(tmp_path / "d.h5", six)
    with pytest.raises(StateError, match=r"d\.h5: key 'F_init': has shape \(6, 6, 4\).*data\.axes"):
        read(path, Layout())
    named = Layout(axes=("samples", "species", "components"))
    assert len(read(path, named)) == 6
    with pytest.raises(ValueError, match=r"data\.species must name nu_e.*got"):
        Layout(species=("nu_e",) * 6)


def changed(key, index, value):
    def change(content):
        content[key] = content[key].copy()
        content[key][index] = value

    return change


BROKEN = {
    "not finite": (
        changed("F_true", (4, 1, 2), np.nan),
        r"broken\.h5\[4\]: key 'F_true': must be finite; got nan \(nu_mu, component z\)",
    ),
    "negative": (
        changed("F_init", (5, 3, 3), -1e31),
        r"\[5\]: key 'F_init': N must be >= 0; got -1e\+31 \(nubar_e\)",
    ),
    "above light": (
        changed("F_true", (2, 0, 0), 2e33),
        r"\[2\]: key 'F_true': \|F\| must be <= N; got \|F\| / N = .*\(nu_e\)",
    ),
    "sum": (
        changed("F_true", (7, 4, 3), 1.5e33),
        r"\[7\]: key 'F_true': the sum over antineutrinos, component t, differs.*data\.tolerance",
    ),
    "empty": (
        changed("F_init", 1, 0.0),
        r"\[1\]: key 'F_init': N_tot must be > 0; got 0",
    ),
    "missing": (lambda content: content.pop("F_true"), r"key 'F_true': is missing; the file has"),
    "four samples": (
        lambda content: content.update(F_true=content["F_true"][:5]),
        r"key 'F_true': has 5 samples, and F_init has 9",
    ),
    "flat": (
        lambda content: content.update(F_init=content["F_init"].reshape(9, 24)),
        r"key 'F_init': must have 3 axes, samples, species, components; its shape is \(9, 24\)",
    ),
    "words": (
        lambda content: content.update(F_init=["a"] * 9),
        r"key 'F_init': must hold numbers",
    ),
    "no four-velocity": (
        lambda content: content.update(u=np.full((9, 4), 0.3)),
        r"\[0\]: key 'u': must be a four-velocity over c: u\.u = -1",
    ),
}
assert COMPONENTS == ("x", "y", "z", "t")


@pytest.mark.parametrize("what", BROKEN)
def test_broken_samples_are_named(what, tmp_path):
    content = healthy()
    breaks, message = BROKEN[what]
    breaks(content)
    with pytest.raises(StateError) as error:
        read(written(tmp_path / "broken.h5", content), Layout())
    assert re.search(message, str(error.value)), error.value
    assert "\n" not in str(error.value)


def test_damaged_files_are_errors_of_one_line(tmp_path):
    path = written(tmp_path / "cut.h5", healthy())
    whole = path.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:length])
        with pytest.raises(StateError, match=r"cut\.h5"):
            read(path, Layout())
    with pytest.raises(StateError, match="does not exist"):
        read(tmp_path / "none.h5", Layout())


def test_splits_are_by_family_or_hold_one_out():
    families = ["a"] * 50 + ["b"] * 30 + ["c"] * 20
    fractions = {"train": 0.7, "validation": 0.1, "test": 0.2}
    parts = split(families, fractions, None, 0)
    assert sorted(sum(parts.values(), [])) == list(range(100))
    assert [sum(families[i] == f for i in parts["test"]) for f in "abc"] == [10, 6, 4]
    assert parts == split(families, fractions, None, 0) != split(families, fractions, None, 1)
    held = split(families, fractions, "b", 0)
    assert held["test"] == list(range(50, 80))
    assert not {*held["train"], *held["validation"]} & {*held["test"]}
    assert len(held["train"]) + len(held["validation"]) == 70
    with pytest.raises(ValueError, match=r"data\.hold_out must be one of a, b, c; got 'd'"):
        split(families, fractions, "d", 0)


def test_the_consolidated_file_holds_what_is_computed(tmp_path, capsys):
    from physics_hybrid.problems.flavour.data.preprocess import main

    path = written(tmp_path / "in.h5", healthy())
    main([str(path), str(tmp_path / "out.h5"), "--families", "dirname"])
    assert "9 samples (run0 5, run1 4)" in capsys.readouterr().err
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["invariants"].shape == (9, 27)
        residual = (file["F_true"][()] - file["F_box"][()]).reshape(9, 24) / N_TOT
        np.testing.assert_allclose(file["residual"][()], residual, atol=1e-6)
        scale = np.quantile(np.abs(file["F_true"][()] / N_TOT), 0.99)
        assert float(file.attrs["target_scale"]) == pytest.approx(scale, rel=1e-5)
    again = read(tmp_path / "out.h5", Layout(families="dirname"))
    assert again.families[1] == "run1"
    assert again.box is not None
