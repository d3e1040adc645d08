"""A right answer, or one line that helps."""

import numpy as np
import pytest
import yaml

import physics_hybrid as ph
from tests.problems.potential.door import fuzz


def test_random_inputs_end_in_the_right_field_or_a_line_that_helps():
    assert fuzz.door(20, seed=5) == []


@pytest.mark.parametrize("broken", sorted(fuzz.WRONG))
def test_what_breaks_a_case_is_refused(broken):
    case = fuzz.whole_case()
    fuzz.WRONG[broken](case, np.random.default_rng(0))
    with pytest.raises(fuzz.MEANT) as refused:
        fuzz.answered(case)
    assert fuzz.judge(broken, False, refused.value, np.ones(1)) is None


@pytest.mark.parametrize("name", sorted(fuzz.TYPED))
def test_a_command_line_answers_or_says_what_is_wrong_and_leaves_with_its_status(name, tmp_path):
    assert fuzz.typed(name, tmp_path) is None


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"spacing": (4.0, 5.0, 3.0)}, "is it in other units"),
        ({"at": (14.1, 13.1, 10.2)}, "are these millimetres?"),
        ({"at": (3.0, 3.0, 3.0)}, "are these voxels?"),
        ({"at": (0.0141, 0.0005, 0.0005)}, "the nearest tissue is .* mm away, at"),
        ({"sigma": fuzz.LABELS}, "are these labels?"),
        ({"frame": "world"}, "needs a body with an affine"),
        ({"ends": "pair"}, "needs returns"),
    ],
)
def test_it_asks_what_was_perhaps_meant(case, said):
    with pytest.raises(ValueError, match=said):
        fuzz.answered({**fuzz.whole_case(), **case})


def test_a_body_that_is_a_millimetre_or_ten_metres_asks_for_its_unit():
    for edge in (2e-5, 2.0):
        with pytest.raises(ValueError, match="other units"):
            ph.Body(np.full((8, 8, 8), 0.3), (edge,) * 3)
    tiny = np.zeros((8, 8, 80))
    tiny[2:4, 2:4, 2:4] = 0.3
    with pytest.raises(ValueError, match=r"the tissue is 0\.4 mm long"):
        ph.Body(tiny, (2e-4,) * 3)


def test_pieces_that_no_current_reaches_are_named_and_can_be_left_out():
    sigma = fuzz.TABLE[fuzz.LABELS]
    sigma[3, 0, 0] = 0.3
    with pytest.raises(ValueError, match=r"1 of 2 pieces .*\(1 voxels\).*keep_largest=True"):
        ph.solve(ph.Body(sigma, fuzz.EDGES), fuzz.whole_case()["at"])
    body = ph.Body(sigma, fuzz.EDGES, keep_largest=True)
    phi = ph.solve(body, fuzz.whole_case()["at"], tolerance=1e-8).phi
    assert np.allclose(phi, fuzz.answered(fuzz.whole_case()), atol=1e-9)
    flat = np.zeros((8, 7, 6, 3)) + [0.3, 0.0, 0.3]
    with pytest.raises(ValueError, match="tissue that does not conduct in every direction"):
        ph.solve(ph.Body(flat, (0.004,) * 3), (0.016, 0.014, 0.01))
    # two pieces that both reach the ends are two bodies with their own ground
    sigma = np.zeros((8, 9, 6))
    sigma[:, :4], sigma[:, 5:] = 0.3, 0.3
    field = ph.solve(ph.Body(sigma, (0.004,) * 3), (0.016, 0.008, 0.012), tolerance=1e-3)
    for one in (field, field.refine(1e-9)):
        assert one.phi[:, :4].max() > 0
        assert not one.phi[:, 5:].any()
        assert not one.J[:, 5:].any()
        assert one.at((0.016, 0.027, 0.013)) == 0


def test_options_stand_in_yaml_too_and_what_is_typed_goes_first(tmp_path, capsys):
    from physics_hybrid.verbs.solve import main

    labels = fuzz.nifti(tmp_path, fuzz.LABELS)
    config = {
        "file": str(labels),
        "at": [[0.0141, 0.0131, 0.0102], [0.018, 0.0131, 0.0102]],
        "current": [1e-3, 2e-3],
        "ends": "sink",
        "probe": [[0.0205, 0.013, 0.0102]],
        "progress": False,
        "out": [str(tmp_path / "phi.npz")],
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    main(["--config", str(tmp_path / "a.yaml"), "--tolerance", "1e-9"])
    said = capsys.readouterr().out
    assert "ends: sink" in said
    assert "source 1:" in said
    body = ph.read_labels(labels)
    field = ph.solve(body, config["at"], config["current"], ends="sink", tolerance=1e-9)
    with np.load(tmp_path / "phi.npz") as stored:
        assert np.allclose(stored["phi"], field.phi, atol=1e-12)
        assert stored["tolerance"] == 1e-9
    main(["--config", str(tmp_path / "a.yaml"), "--ends", "grounded"])
    assert "ends: grounded" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_said_before_anything_is_solved(tmp_path, capsys):
    from physics_hybrid.verbs import certify, solve

    words = ["none.nii.gz", "--at", "0.0141", "0.0131", "0.0102"]
    for main, option, name in (
        (solve.main, "--out", "phi.txt"),
        (solve.main, "--figure", "phi.xyz"),
        (certify.main, "--out", "bound.npz"),
    ):
        with pytest.raises(SystemExit) as left:
            main([*words, option, str(tmp_path / name)])
        assert left.value.code == 1
        said = capsys.readouterr().err
        assert f"{name}: a" in said or f"{name}: fields are written as" in said
        assert "none.nii.gz" not in said  # not even looked for yet


def test_solve_goes_on_from_a_file_and_says_how_wrong_it_is(tmp_path, capsys):
    from physics_hybrid.verbs.solve import main

    labels = fuzz.nifti(tmp_path, fuzz.LABELS)
    words = [str(labels), "--at", "0.0141", "0.0131", "0.0102", "--no-progress"]
    main([*words, "--out", str(tmp_path / "phi.npz"), "--tolerance", "1e-8"])
    assert "energy error" not in capsys.readouterr().out
    main([*words, "--start", str(tmp_path / "phi.npz"), "--certify"])
    said = capsys.readouterr().out
    assert "0 iterations" in said
    assert "energy error at most 0." in said


def test_a_field_that_lies_beside_its_segmentation_is_refused(tmp_path, capsys):
    import nibabel

    from physics_hybrid.verbs.certify import main

    labels = fuzz.nifti(tmp_path, fuzz.LABELS)
    body = ph.read_labels(labels)
    field = ph.solve(body, (0.0141, 0.0131, 0.0102))
    words = [str(labels), "--at", "0.0141", "0.0131", "0.0102", "--field"]
    path = field.save(tmp_path / "phi.nii.gz")
    main([*words, str(path)])
    capsys.readouterr()
    image = nibabel.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 1.0
    nibabel.save(nibabel.Nifti1Image(image.get_fdata(), moved), tmp_path / "moved.nii.gz")
    with pytest.raises(SystemExit):
        main([*words, str(tmp_path / "moved.nii.gz")])
    assert "lies up to 1 mm from the segmentation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("att: [1, 2, 3]", "did you mean at?"),
        ("at: [1, 2]", "expected 3 arguments"),
        ("at: {x: 1}", "argument --at"),
        ("tolerance: [1, 2]", "unrecognized arguments: 2"),
        ("tolerance: true", "no true or false is expected"),
        ("- 1", "`key: value` lines are expected"),
        ("at: [1, 2", "cannot be read as YAML"),
        ("keep_largest: 3", "true or false is expected"),
    ],
)
def test_a_yaml_file_that_is_wrong_is_said_by_file_and_key(tmp_path, capsys, text, said):
    from physics_hybrid.verbs.solve import main

    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SystemExit) as left:
        main(["x.nii.gz", "--config", str(tmp_path / "a.yaml")])
    message = capsys.readouterr().err
    assert left.value.code == 2
    assert f"--config {tmp_path / 'a.yaml'}" in message
    assert said in message
    assert message.count("\n") == 1


def test_every_option_has_a_key_with_a_comment_and_help_shows_it(capsys):
    from physics_hybrid.options import keys_of
    from physics_hybrid.verbs import (
        certify,
        electrodes,
        explore,
        lead_field,
        solve,
        sweep,
        uncertainty,
    )

    for module in (solve, lead_field, certify, electrodes, explore, sweep, uncertainty):
        verb = module.__name__.rpartition(".")[2]
        defaults, help_of = keys_of(verb)
        assert {*defaults} == {*help_of} == {"file", *module.SHAPES}
        assert all(help_of.values())
        with pytest.raises(SystemExit) as left:
            module.main(["--help"])
        assert left.value.code == 0
        page = capsys.readouterr().out
        for key in module.SHAPES:
            assert f"--{key.replace('_', '-')}" in page


def test_a_lead_field_from_the_command_line(tmp_path, capsys):
    from physics_hybrid.verbs.lead_field import main

    labels = fuzz.nifti(tmp_path, fuzz.LABELS)
    (tmp_path / "places.csv").write_text("# grid, m\n0.014, 0.0, 0.01\n0.02 0.0 0.01\n")
    words = [str(labels), "--electrodes", str(tmp_path / "places.csv"), "--nearest"]
    main([*words, "--out", str(tmp_path / "lead.h5"), "--reference", "average"])
    assert "LeadField(2 electrodes" in capsys.readouterr().out
    lead = ph.LeadField.load(tmp_path / "lead.h5", ph.read_labels(labels))
    assert lead.reference == "average"
    assert lead(fuzz.whole_case()["at"]).sum() == pytest.approx(0, abs=1e-3)
    (tmp_path / "places.csv").write_text("1, 2\n")
    with pytest.raises(SystemExit) as left:
        main([*words, "--out", str(tmp_path / "lead.h5")])
    assert left.value.code == 1
    assert "line 1: three numbers are expected" in capsys.readouterr().err
