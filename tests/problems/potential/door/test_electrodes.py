"""The complete electrode model: exact solutions, reciprocity, charge; shapes, refusals."""

import json

import numpy as np
import pytest
import torch

import physics_hybrid as ph
from physics_hybrid.problems.potential import certify
from physics_hybrid.problems.potential.certify.current import Currents, added
from physics_hybrid.problems.potential.certify.electrodes import Films
from physics_hybrid.problems.potential.certify.flux import Flux, inner
from physics_hybrid.problems.potential.certify.potential import from_centres
from physics_hybrid.problems.potential.exact import electrodes as exact
from physics_hybrid.problems.potential.physics.subtraction import Subtraction

H = 1e-3
SIGMA = 0.3
disk, rectangle = ph.Electrode.disk, ph.Electrode.rectangle


def block(*shape, sigma=SIGMA, h=H):
    return ph.Body(np.broadcast_to(sigma, (*shape, *np.shape(sigma))).copy(), (h,) * 3)


def cap(body, d, z=None):
    """Over a whole end of a block."""
    D, HH, W = body.extent
    return rectangle((d * D, HH / 2, W / 2), (HH, W), z)


def resistance(body, electrodes, **options):
    """Ohm, between the first two."""
    options.setdefault("tolerance", 1e-6)  # R is right to its square
    system = ph.electrodes(body, electrodes, progress=False, **options)
    return float(system.transfer((0, 1), (0, 1)))


def with_return(n, centre, radius, sigma=SIGMA):
    """R of a disk in the middle of a bar of n^3 voxels, beyond that of the bar."""
    body = block(n, n, n, sigma=sigma)
    along = np.ravel(sigma)[0]
    found = resistance(body, [disk(centre, radius), cap(body, 1)])
    return found - 1 / (along * n * H)


@pytest.mark.exact
@pytest.mark.parametrize("z", [None, 0.004])
def test_a_bar_between_two_caps_is_in_series_with_its_contacts(z):
    bar = block(12, 4, 5, sigma=(0.5, 0.2, 0.1))
    area = 20 * H**2
    expected = 12 * H / (0.5 * area) + 2 * (z or 0) / area
    assert resistance(bar, [cap(bar, 0, z), cap(bar, 1, z)]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.exact
@pytest.mark.parametrize("place", [(0.31, -0.17), (0.5, 0.02)])
def test_newmans_disk_is_right_to_1_percent_at_5_voxels_a_radius(place):
    n = 28
    centre = np.array([0, n / 2 + place[0], n / 2 + place[1]]) * H
    expected = exact.disk_on_a_bar(5 * H, n * H, SIGMA)
    assert with_return(n, centre, 5 * H) == pytest.approx(expected, rel=0.01)


@pytest.mark.exact
def test_a_disk_on_fibres_across_it_is_newmans_disk_of_a_stretched_body():
    # along its normal 0.1 S/m, across it 0.3: lengths along D are stretched by sqrt(3)
    expected = exact.disk_on_a_bar(5 * H, 28 * H, np.sqrt(0.1 * 0.3))
    found = with_return(28, np.array([0, 14.2, 13.9]) * H, 5 * H, sigma=(0.1, 0.3, 0.3))
    assert found == pytest.approx(expected, rel=0.015)


@pytest.mark.exact
@pytest.mark.parametrize("half", [5.0, 5.3])
def test_a_strip_that_drives_has_the_resistance_of_its_constriction(half):
    n = 40
    body = block(n, n, 2)
    strip = rectangle(np.array([n / 2, 0, 1]) * H, (2 * half * H, 2 * H))
    far = rectangle(np.array([n / 2, n, 1]) * H, (n * H, 2 * H))
    found = resistance(body, [strip, far]) * 2 * H - 1 / SIGMA
    assert found == pytest.approx(exact.driving_strip(half * H, n * H, SIGMA), rel=0.005)


def shunted(k, half):
    """A strip of half-width `half` mm that carries no net current, at voxels of 2 / k mm: errors of
    its field and of how much shorter it makes the layer."""
    h = 2e-3 / k
    n, depth = 80 * k, 16 * k
    body = block(n, depth, 2, h=h)
    middle = (n * h / 2, 0, h)
    strip = rectangle(middle, (2e-3 * half, 2 * h))
    system = ph.electrodes(body, [cap(body, 0), cap(body, 1), strip], progress=False)
    field = system.solve(currents={0: 1e-3, 1: -1e-3})
    area = depth * h * 2 * h
    shorter = n * h - float(system.transfer((0, 1), (0, 1))) * SIGMA * area
    x, y = (np.arange(n) + 0.5) * h - n * h / 2, (np.arange(depth) + 0.5) * h
    truth = exact.shunting_strip(x[:, None], y, 1e-3 * half, depth * h) * 1e-3 / (SIGMA * area)
    found = field.phi[:, :, 0] - field.voltages[2]
    off = np.linalg.norm(found - truth) / np.linalg.norm(truth)
    return off, abs(shorter / exact.shunted(1e-3 * half, depth * h) - 1)


@pytest.mark.slow
@pytest.mark.exact
def test_a_strip_that_shunts_has_the_exact_field_and_converges():
    coarse, fine, between = shunted(1, 10.0), shunted(2, 10.0), shunted(1, 10.6)
    assert coarse[0] < 0.002
    assert coarse[1] < 0.02
    assert fine[0] < coarse[0] / 2.5
    assert fine[1] < coarse[1] / 2.5
    assert between[0] < 0.001  # an edge in the middle of a voxel
    assert between[1] < 0.005


@pytest.mark.exact
def test_the_exact_strip_solves_the_problem_it_is_for():
    x, y = np.meshgrid(np.linspace(0.001, 0.1, 301), np.linspace(0, 0.032, 129), indexing="ij")
    phi = exact.shunting_strip(x, y, 0.01, 0.032)
    dx, dy = x[1, 0] - x[0, 0], y[0, 1] - y[0, 0]
    inner = phi[1:-1, 1:-1]
    laplace = (phi[2:, 1:-1] + phi[:-2, 1:-1] - 2 * inner) / dx**2
    laplace += (phi[1:-1, 2:] + phi[1:-1, :-2] - 2 * inner) / dy**2
    away = np.hypot(x - 0.01, y)[1:-1, 1:-1] > 0.006
    assert np.abs(laplace[away]).max() < 0.5  # of 1 V/m over 10 mm: 100
    assert not phi[x[:, 0] < 0.01, 0].any()
    assert np.abs(phi[:, -1] - phi[:, -2])[10:].max() < 2e-3 * dy
    far = exact.shunting_strip(np.array([0.3]), np.array([0.01]), 0.01, 0.032)
    assert far[0] == pytest.approx(-(0.3 - exact.shunted(0.01, 0.032) / 2), rel=1e-6)
    # a deep layer is a half space: E Re sqrt(z^2 - a^2)
    z = np.array([0.013, 0.02]) + 1j * np.array([0.004, 0.0])
    deep = exact.shunting_strip(z.real, z.imag, 0.01, 10.0)
    assert deep == pytest.approx(-np.sqrt(z**2 - 0.01**2).real, rel=1e-4)


@pytest.mark.exact
def test_a_film_on_a_thin_layer_takes_current_as_a_cable_does():
    # sigma H phi'' = phi / z: R = sqrt(z / (sigma H)) coth(l / lambda) a metre of width
    body, z, length = block(40, 1 + 1, 2), 0.05, 30e-3
    depth = 2 * H
    film = rectangle((25e-3, 0, H), (length, 2 * H), z)
    full = z + depth / (3 * SIGMA)  # across the layer, of a parabola
    wave = np.sqrt(SIGMA * depth * full)
    expected = (10e-3 / (SIGMA * depth) + full / wave / np.tanh(length / wave)) / (2 * H)
    found = resistance(body, [film, cap(body, 0)])
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
@pytest.mark.exact
def test_far_from_small_disks_the_field_is_that_of_points():
    body = block(48, 24, 24)
    at, back = np.array([12.5, 0.0, 12.5]) * H, np.array([36.5, 0.0, 12.5]) * H
    system = ph.electrodes(body, [disk(p, 1.2 * H) for p in (at, back)], progress=False)
    field = system.solve(currents=[1e-3, -1e-3])
    deeper = np.array([0, 0.5 * H, 0])  # the centres of their voxels
    points = ph.solve(body, at + deeper, 1e-3, returns=back + deeper, tolerance=1e-8)
    places = body.extent * np.array([[0.1, 0.9, 0.5], [0.3, 0.7, 0.9], [0.5, 0.3, 0.1]])
    volts, true = field.at(places), points.at(places)
    assert np.abs(np.diff(volts) / np.diff(true) - 1).max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("z", [0.01, None])
def test_a_certificate_is_above_the_error_that_finer_voxels_show(z):
    def on(parts):
        """Two squares on a cube, on voxels of 1 / parts mm."""
        body = block(8 * parts, 8 * parts, 8 * parts, h=H / parts)
        squares = [rectangle((d * H, 4 * H, 0), (2 * H, 2 * H), z) for d in (2, 6)]
        return ph.electrodes(body, squares, progress=False).solve(currents=[1e-3, -1e-3])

    field, finer, finest = on(1), on(2), on(4)
    power = 2 * finest.power - finer.power  # of the truth, where errors are of first order
    error = energy(field) - 2 * field.power + power
    bound = float(field.certify().bound[0])
    assert 0 < error < bound**2 < 1.7**2 * error
    assert float(finer.certify().bound[0]) < 0.85 * bound
    assert field.bound == bound / float(field.certify().energy[0])


def energy(field):
    """int sigma |grad v|^2 + int (U - v)^2 / z of the potential that the certificate judges, W."""
    through, U = field.through[0], torch.from_numpy(field.potentials[0])
    body, contacts = certify.body.Body.of(field.conductor), field.system.contacts
    films, currents = Films.of(body, contacts), Currents.of(body)
    density = contacts.on_grid(through, body.shape)[None] / body.volume
    known = Subtraction.density(body.conductor, currents.operator, density)
    inflow = contacts.through_skin(through, body.shape, body.spacing)
    J = added(currents.of_field(known, field.volts[0]), inflow)
    nodes = films.held(from_centres(body, field.volts[0], J, []), U)
    nothing = [torch.zeros(body.shape, dtype=torch.float64)] * 3
    flux = Flux(body, nodes, nothing, nothing)
    return float(inner(body, flux, flux)[0].sum() + films.mismatch(nodes, U, 0 * through).sum())


def limb_system(limb, **options):
    places = limb.nearest([[d, h, 0.05] for d in (0.06, 0.1, 0.14) for h in (0.0, 0.1)])
    electrodes = [disk(p, 0.012, z) for p, z in zip(places, [None, 1e-3, 0.01] * 2, strict=True)]
    return ph.electrodes(limb, electrodes, progress=False, **options)


@pytest.mark.parametrize(
    ("ends", "tolerance"),
    [("pair", 1e-2), ("pair", 1e-8), ("grounded", 1e-2), ("robin", 1e-2), ("sink", 1e-2)],
)
def test_impedances_are_symmetric_and_positive_whatever_the_tolerance(limb, ends, tolerance):
    beta = 20.0 if ends == "robin" else None
    system = limb_system(limb, ends=ends, beta=beta, tolerance=tolerance)
    Z, Y = system.impedance, system.admittance
    assert np.array_equal(Z, Z.T)
    assert np.array_equal(Y, Y.T)
    lowest = np.linalg.eigvalsh(Z).min()
    assert lowest > -1e-12 * np.abs(Z).max() if system.ends.floating else lowest > 0
    if system.ends.floating:
        assert np.abs(Y.sum(axis=1)).max() < 1e-12 * Y.max()
    assert (Y - np.diag(np.diag(Y))).max() <= 0


@pytest.mark.parametrize("ends", ["pair", "grounded", "sink"])
def test_what_is_delivered_is_what_was_asked_for_and_passes_the_body(limb, ends):
    system = limb_system(limb, ends=ends, tolerance=1e-9)
    asked = np.array([1e-3, -3e-4, 0.0, -7e-4, 0.0, 0.0])
    if ends != "pair":
        asked[4] = 5e-4
    field = system.solve(currents=asked)
    assert field.defect < 1e-10
    assert np.abs(field.currents - asked).max() < 1e-13
    # Gauss: the equation of every voxel, all currents of faces in it, none of the model's own
    operator, density = field._operator, field.sources.part(field.conductor, slice(0, 1))
    lost = operator(field.volts) - density
    if ends == "sink":
        lost += torch.from_numpy(limb.tissue) * density.sum() / int(limb.tissue.sum())
    assert float(lost[0][limb.tissue].norm() / density.norm()) < 1e-7
    assert float(density.sum()) * np.prod(limb.spacing) == pytest.approx(asked.sum(), abs=1e-12)


def test_the_error_of_impedances_is_the_square_of_that_of_fields(limb):
    exact_ = limb_system(limb, tolerance=1e-12).impedance
    off = [
        np.abs(limb_system(limb, tolerance=t).impedance / exact_ - 1).max() for t in (1e-2, 1e-4)
    ]
    assert off[0] < 1e-3
    assert off[1] < 1e-6


def test_driven_by_currents_by_voltages_or_by_either_it_is_the_same_field(limb):
    system = limb_system(limb)
    current = system.solve(currents=[1e-3, -1e-3, 0, 0, 0, 0])
    voltage = system.solve(voltages=current.voltages)
    assert np.allclose(voltage.currents, current.currents, atol=1e-14)
    assert np.abs(voltage.phi - current.phi).max() < 1e-11
    mixed = system.solve(currents={1: -1e-3}, voltages={0: current.voltages[0]})
    assert mixed.currents[0] == pytest.approx(1e-3, rel=1e-9)
    assert mixed.voltages == pytest.approx(current.voltages, abs=1e-10)
    many = system.solve(currents=np.eye(6)[:3] - np.eye(6)[3:])
    assert many.phi.shape == (3, *limb.shape)
    added = many.phi.sum(axis=0)
    assert np.allclose(added, system.solve(currents=[1, 1, 1, -1, -1, -1]).phi, atol=1e-9)
    assert mixed.power == pytest.approx((mixed.voltages * mixed.currents).sum())


@pytest.mark.slow
def test_more_metal_and_better_contacts_only_lower_a_resistance(limb):
    places = limb.nearest([[0.06, 0.0, 0.05], [0.14, 0.0, 0.05], [0.1, 0.0, 0.05]])
    two = [disk(p, 0.012, 0.01) for p in places[:2]]
    alone = resistance(limb, two)
    assert resistance(limb, [*two, disk(places[2], 0.012)]) < alone
    better = [disk(p, 0.012, 0.001) for p in places[:2]]
    assert resistance(limb, better) < alone
    # a contact that is bad carries all of the voltage
    bad = [disk(p, 0.012, 100.0) for p in places[:2]]
    system = ph.electrodes(limb, bad, progress=False)
    films = (100.0 / system.areas).sum()
    assert system.transfer((0, 1), (0, 1)) == pytest.approx(films, rel=0.01)
    assert system.areas == pytest.approx(np.pi * 0.012**2, rel=0.02)


def test_one_electrode_and_ends_that_take_its_current():
    bar = block(12, 3, 3)
    sheet = rectangle((6 * H, 1.5 * H, 1.5 * H), (3 * H, 3 * H), normal=(1, 0, 0), inside=True)
    one = ph.electrodes(bar, [sheet], progress=False)
    assert one.ends.kind == "grounded"
    # two halves side by side, 6 mm each
    assert one.impedance[0, 0] == pytest.approx(6 / 2 * H / (SIGMA * 9 * H**2), rel=1e-9)
    sunk = ph.electrodes(bar, [cap(bar, 0)], ends="sink", progress=False, tolerance=1e-12)
    field = sunk.solve(currents=[1e-3])
    # a uniform sink: U less the mean is a third of the bar
    third = 1e-3 * 12 * H / (SIGMA * 9 * H**2) / 3
    assert field.voltages[0] == pytest.approx(third, rel=0.01)
    assert sunk.impedance[0, 0] == pytest.approx(1e3 * field.voltages[0], rel=1e-9)
    assert abs(field.phi.mean()) < 1e-12


def test_sheets_inside_conduct_as_films_and_one_side_of_them_insulates():
    bar = block(12, 3, 3)
    caps, area = [cap(bar, 0), cap(bar, 1)], 9 * H**2
    bare = 12 * H / (SIGMA * area)
    middle = (6 * H, 1.5 * H, 1.5 * H)
    asked = {"normal": (1, 0, 0), "inside": True}
    metal = rectangle(middle, (3 * H, 3 * H), **asked)
    assert resistance(bar, [*caps, metal]) == pytest.approx(bare, rel=1e-9)
    film = rectangle(middle, (3 * H, 3 * H), 0.002, **asked)
    assert resistance(bar, [*caps, film]) == pytest.approx(bare + 2 * 0.002 / area, rel=1e-9)
    # from one side only: a blind end; half of the section is left
    faces = [(5, h, w, "+D") for h in range(3) for w in range(3) if h < 2]
    backed = ph.electrodes(bar, [*caps, ph.Electrode.faces(faces)], progress=False)
    assert backed.transfer((0, 1), (0, 1)) > bare
    field = backed.solve(currents={0: 1e-3, 2: -1e-3})
    assert field.defect < 1e-10
    # nothing crosses the faces that are covered
    J = field._operator.current_density(field.volts)[0][0, 6]
    assert not J[:2].any()
    assert J[2].any()


def labelled():
    """A block in which label 7 is a rod of metal across it, label 1 tissue."""
    labels = np.ones((20, 8, 8), dtype=int)
    labels[9:11, 2:6] = 7
    sigma = np.where(labels == 7, 5.0, SIGMA)
    return ph.Body(sigma, (H,) * 3, labels=labels)


@pytest.mark.slow
def test_a_label_is_metal_and_the_same_as_its_faces_listed():
    body = labelled()
    caps = [cap(body, 0), cap(body, 1)]
    system = ph.electrodes(body, [*caps, ph.Electrode.label(7)], progress=False)
    assert not system.body.tissue[body.labels == 7].any()
    faces = [(8, h, w, "+D") for h in range(2, 6) for w in range(8)]
    faces += [(11, h, w, "-D") for h in range(2, 6) for w in range(8)]
    faces += [(d, h, w, s) for d in (9, 10) for h, s in ((1, "+H"), (6, "-H")) for w in range(8)]
    sigma = np.where(body.labels == 7, 0.0, SIGMA)
    hollow = ph.Body(sigma, (H,) * 3)
    same = ph.electrodes(hollow, [*caps, ph.Electrode.faces(faces)], progress=False)
    assert np.allclose(system.impedance, same.impedance, rtol=1e-6)
    # metal conducts better than tissue, a hole worse
    assert system.transfer((0, 1), (0, 1)) < resistance(block(20, 8, 8), caps)
    assert resistance(hollow, caps) > resistance(block(20, 8, 8), caps)
    # much better tissue is nearly metal
    rod = np.where(body.labels == 7, 100 * SIGMA, SIGMA)
    near = resistance(ph.Body(rod, (H,) * 3), caps)
    assert system.transfer((0, 1), (0, 1)) == pytest.approx(near, rel=0.03)


def test_a_list_of_faces_is_the_rectangle_that_covers_them():
    body = block(10, 16, 16)
    faces = [(0, h, w, "-D") for h in range(5, 11) for w in range(4, 11)]
    square = rectangle(np.array([0, 8, 7.5]) * H, (6 * H, 7 * H), 0.001, along=(0, 1, 0))
    listed = ph.Electrode.faces(faces, 0.001)
    back = cap(body, 1)
    assert resistance(body, [listed, back]) == pytest.approx(resistance(body, [square, back]))


def test_oblique_tensors_without_obliqueness_are_the_diagonal_ones():
    random = np.random.default_rng(0)
    sigma = random.uniform(0.1, 0.5, (10, 8, 8, 3))
    six = np.concatenate([sigma, np.zeros_like(sigma)], axis=-1)
    six[..., 3] = 1e-9
    places = [disk((0.003, 0.004, 0.0), 0.002, 0.01), disk((0.007, 0.004, 0.0), 0.002, 0.01)]
    diagonal, oblique = (ph.Body(s, (H,) * 3) for s in (sigma, six))
    assert resistance(oblique, places) == pytest.approx(resistance(diagonal, places), rel=1e-6)
    sheet = disk((0.005, 0.004, 0.004), 0.002, normal=(1, 0, 0), inside=True)
    with pytest.raises(ValueError, match="inside tissue need tensors along the axes"):
        ph.electrodes(oblique, [*places, sheet])


def test_a_turned_body_has_the_same_impedances():
    random = np.random.default_rng(1)
    sigma = random.choice([0.05, 0.3, 1.0], size=(9, 10, 12))
    spacing = np.array([0.004, 0.005, 0.003])
    centres = np.array([[0.011, 0.021, 0.0], [0.024, 0.031, 0.0]])
    order = [2, 0, 1]
    here = ph.Body(sigma, spacing)
    there = ph.Body(sigma.transpose(order), spacing[order])
    first = ph.electrodes(here, [disk(c, 0.008, 0.02) for c in centres], ends="pair")
    turned = [disk(c[order], 0.008, 0.02) for c in centres]
    second = ph.electrodes(there, turned, ends="pair")
    assert np.allclose(first.impedance, second.impedance, rtol=1e-9)


def test_the_world_of_a_file_is_another_way_to_say_the_same_place():
    affine = np.diag([-4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = 50, -20, 7
    body = ph.Body(np.full((12, 12, 12), 0.3), (0.004,) * 3, affine)
    index = np.array([[3.2, 6.0, -0.5], [8.1, 6.0, -0.5]])
    grid = [disk((i + 0.5) * 0.004, 0.009, 0.01) for i in index]
    world = [disk(affine[:3, :3] @ i + affine[:3, 3], 9.0, 0.01, normal=(0, 0, -1)) for i in index]
    assert resistance(body, world, frame="world") == pytest.approx(resistance(body, grid))


@pytest.mark.slow
def test_fields_are_ohms_between_voxels_and_in_files(limb, tmp_path):
    system = limb_system(limb)
    field = system.solve(currents={0: 1e-3, 5: -1e-3})
    assert isinstance(field, ph.Field)
    sigma = np.moveaxis(limb.sigma[0].numpy(), 0, -1)
    assert np.allclose(field.J, sigma * field.E, rtol=1e-12, atol=1e-15)
    assert field.voltages[5] < field.phi.min()
    assert field.phi.max() < field.voltages[0]
    # under the electrode the current comes through the skin
    contacts = system.contacts
    mine = (contacts.electrode == 0).numpy()
    d, h, w = contacts.voxels[mine].T.numpy()
    into = field.J[d, h, w, contacts.axis[mine]] * (1 - 2 * contacts.side[mine].numpy())
    assert into.min() > 0
    assert field.at(limb.electrode) == pytest.approx(field.at([limb.electrode])[0])
    stored = np.load(field.save(tmp_path / "field.npz"))
    assert stored["currents"][0] == pytest.approx(field.currents)
    assert stored["voltages"][0] == pytest.approx(field.voltages)
    assert field.save(tmp_path / "field.h5").exists()
    finer = field.refine(1e-11, progress=False)
    assert finer.residual < field.residual
    assert finer.voltages == pytest.approx(field.voltages, abs=1e-8)
    Z = system.impedance
    assert np.loadtxt(system.save(tmp_path / "Z.csv"), delimiter=",") == pytest.approx(Z)
    assert np.load(system.save(tmp_path / "Z.npz"))["impedance"] == pytest.approx(Z)
    assert json.loads(system.save(tmp_path / "Z.json").read_text())["ends"] == "pair"
    with pytest.raises(ValueError, match=r"written as \.csv, \.json or \.npz"):
        system.save(tmp_path / "Z.txt")


ON = (0.024, 0.03, 0.0)
THERE = (0.045, 0.03, 0.0)


@pytest.mark.parametrize(
    ("electrodes", "said"),
    [
        ([disk((0.03, 0.03, -0.05), 0.005), disk(ON, 0.005)], r"electrodes\[0\] lies off the body"),
        ([disk((0.03, 0.03, 0.03), 0.005), disk(ON, 0.005)], "inside=True puts it into tissue"),
        ([disk(ON, 0.005), disk((0.03, 0.03, 0.0), 0.005)], r"electrodes\[0\] and electrodes\[1\]"),
        ([disk((0.0, 0.0, 0.0), 0.02, normal=(0, 0, -1)), disk(THERE, 0.005)], "25% of its area"),
        ([disk(ON, 0.0), disk(THERE, 0.005)], r"electrodes\[0\]\.radius must be > 0 m"),
        ([disk((1, 2), 0.1), disk(THERE, 0.005)], r"centre must be \(3,\) m; got \(2,\)"),
        ([rectangle(ON, 0.01), disk(THERE, 0.005)], "sides must be two lengths"),
        ([rectangle(ON, (0.01, -1)), disk(THERE, 0.005)], r"sides must be > 0 m; got -1"),
        ([ph.Electrode.label(7), disk(THERE, 0.005)], "is a label, and the body has none"),
        ([ph.Electrode.faces([(0, 0, 0, "up")]), disk(THERE, 0.005)], r"one of -D, \+D"),
        ([ph.Electrode.faces([(99, 0, 0, "-W")]), disk(THERE, 0.005)], "a voxel of the grid"),
        ([ph.Electrode.faces([]), disk(THERE, 0.005)], "faces is empty"),
        ([ph.Electrode.faces([(0, 0, 0, "-W")] * 2), disk(THERE, 0.005)], "twice"),
        ([disk(ON, 0.005), (0.03, 0.03, 0)], r"electrodes\[1\] must be a ph\.Electrode"),
        ([disk(ON, 0.0009), disk(THERE, 0.005)], "is 0.45 voxels wide"),
        ([], "electrodes is empty"),
        ([disk(ON, 0.005, inside=True), disk(THERE, 0.005)], "needs normal="),
        (
            [disk(ON, 0.005, inside=True, normal=(0, 1, 1)), disk(THERE, 0.005)],
            "one of the axes of the grid",
        ),
    ],
)
def test_what_is_wrong_with_electrodes_is_said(electrodes, said):
    body = ph.Body(np.full((16, 16, 16), 0.3), (0.004,) * 3)
    with pytest.raises(ValueError, match=said):
        ph.electrodes(body, electrodes)


@pytest.mark.parametrize("z", [0, -1.0, np.nan, np.inf, "good", [1, 2], True])
def test_a_contact_impedance_is_positive_or_left_out(z):
    with pytest.raises(ValueError, match="contact_impedance"):
        disk(ON, 0.005, z)


@pytest.mark.exact
@pytest.mark.parametrize("ends", ["pair", "sink"])
def test_where_nothing_drives_all_is_at_one_potential(ends):
    body = ph.Body(np.full((16, 16, 16), 0.3), (0.004,) * 3)
    pair = [disk(ON, 0.005, 0.01), disk(THERE, 0.005)]
    field = ph.electrodes(body, pair, ends=ends).solve(voltages=[[0.5, np.nan], [0.5, 0.5]])
    assert np.abs(field.voltages - 0.5).max() < 1e-12
    assert np.abs(field.phi - 0.5).max() < 1e-12
    assert (field.currents == 0).all()
    assert field.defect == 0


def test_metal_side_by_side_earns_a_warning():
    labels = np.ones((12, 8, 8), dtype=int)
    labels[4:6, 3:5, 3:5], labels[6:8, 3:5, 3:5] = 7, 8
    body = ph.Body(np.full(labels.shape, 0.3), (0.004,) * 3, labels=labels, names={1: "muscle"})
    metal = [ph.Electrode.label(number, 0.01) for number in (7, 8)]
    with pytest.warns(UserWarning, match=r"electrodes\[0\] and electrodes\[1\] lie side by side"):
        system = ph.electrodes(body, metal)
    assert system.body.names == body.names


def test_what_is_wrong_with_a_drive_is_said_and_the_system_stays_good():
    body = ph.Body(np.full((16, 16, 16), 0.3), (0.004,) * 3)
    system = ph.electrodes(body, [disk(ON, 0.005), disk(THERE, 0.005)])
    before = system.impedance
    for currents, voltages, said in (
        ([1e-3, 0], None, "must add up to 0 A"),
        ([1e-3], None, "one number for each of 2 electrodes"),
        ([np.inf, 0], None, "must be finite"),
        ({2: 1e-3}, None, "there are 0 to 1"),
        ({0: "much"}, None, r"currents\[0\] must be numbers"),
        ({0: [1e-3, 0]}, None, r"currents\[0\] must be one number"),
        ([1e-3, -1e-3], [1.0, np.nan], "electrode 0 is given a current and a voltage"),
        ([[1, -1], [2, -2]], [[np.nan] * 2] * 3, "rows"),
    ):
        with pytest.raises(ValueError, match=said):
            system.solve(currents, voltages)
    for pair, said in (((0, 2), "0 to 1"), ((0, 0), "twice"), ((0.5, 1), "two numbers")):
        with pytest.raises(ValueError, match=said):
            system.transfer(pair, (0, 1))
    system.impedance[0, 0] = -1.0
    assert np.array_equal(system.impedance, before)
    assert system.solve().phi.max() == 0
    field = system.solve([1e-3, -1e-3])
    with pytest.raises(ValueError, match="perfect contact, and covers voxel faces in part"):
        field.certify()
    with pytest.raises(ValueError, match="refine=2 is for point electrodes"):
        field.certify(refine=2)
    with pytest.raises(ValueError, match="intervals are of point electrodes"):
        field.interval(ph.Patch(ON, 0.01))


def test_ends_and_tissue_that_leave_no_answer_are_refused():
    body = ph.Body(np.full((16, 16, 16), 0.3), (0.004,) * 3)
    with pytest.raises(ValueError, match="needs two electrodes"):
        ph.electrodes(body, [disk(ON, 0.005)], ends="pair")
    with pytest.raises(ValueError, match="off the body"):  # the end conducts: no electrode on it
        ph.electrodes(body, [disk((0, 0.03, 0.03), 0.005), disk(ON, 0.005)], ends="grounded")
    sigma = np.full((16, 16, 16), 0.3)
    sigma[8] = 0
    with pytest.raises(ValueError, match="in 2 pieces"):
        ph.electrodes(ph.Body(sigma, (0.004,) * 3), [disk(ON, 0.005), disk(THERE, 0.005)])
    tensor = ph.Body(torch.full((16, 16, 16), 0.3, requires_grad=True), (0.004,) * 3)
    with pytest.raises(ValueError, match="derivatives through electrodes"):
        ph.electrodes(tensor, [disk(ON, 0.005), disk(THERE, 0.005)])
    tensor = ph.Body(tensor.sigma[0, 0].detach(), (0.004,) * 3)
    with pytest.warns(UserWarning, match="is 1.5 voxels wide"):
        system = ph.electrodes(tensor, [disk(ON, 0.003), disk(THERE, 0.005)])
    assert isinstance(system.solve([1e-3, -1e-3]).phi, torch.Tensor)
    over = disk((0.0495, 0.0035, 0.0), 0.005, normal=(0, 0, -1))
    with pytest.warns(UserWarning, match="hangs over an edge"):
        ph.electrodes(body, [over, disk(ON, 0.005)])
    labels = np.ones((16, 16, 16), dtype=int)
    with pytest.raises(ValueError, match="no voxel has the label 7; there are 1"):
        ph.electrodes(ph.Body(sigma, (0.004,) * 3, labels=labels), [ph.Electrode.label(7)])


def typed(words, capsys):
    """What the verb prints, its errors, and its exit status."""
    from physics_hybrid.verbs.electrodes import main

    status = 0
    try:
        main([str(word) for word in words])
    except SystemExit as left:
        status = left.code
    printed = capsys.readouterr()
    return printed.out, printed.err, status


@pytest.fixture
def montage(tmp_path):
    """Files of a body with a piece of metal, a table, faces, and a montage as YAML."""
    labels = np.zeros((24, 12, 12), dtype=np.uint8)
    labels[:, 2:-2, 2:-2] = 3
    labels[8:10, 2:4, 5:7] = 7
    np.save(tmp_path / "m.npy", labels)
    tissues = "air: {label: 0, sigma: 0}\nmuscle: {label: 3, sigma: 0.3}\n"
    (tmp_path / "t.yaml").write_text(tissues + "metal: {label: 7, sigma: 1000.0}\n")
    (tmp_path / "f.txt").write_text("# d h w side\n12 2 6 -H\n12, 2, 7, -H\n")
    disks = "disk: [[0.02, 0.024, 0.0, 0.007], [0.07, 0.024, 0.0, 0.007]]\nnearest: true\n"
    more = "label: [7]\ncontact_impedance: [0.01, 0.01, 0.02, 0.03]\ntransfer: [[0, 1, 2, 3]]\n"
    (tmp_path / "montage.yaml").write_text(f"{disks}{more}faces: [{tmp_path / 'f.txt'}]\n")
    return [tmp_path / "m.npy", "--spacing", *[0.004] * 3, "--tissues", tmp_path / "t.yaml"]


def test_a_montage_from_the_command_line(montage, tmp_path, capsys):
    words = [*montage, "--config", tmp_path / "montage.yaml", "--out", tmp_path / "Z.csv"]
    said, _, status = typed([*words, "--field", tmp_path / "phi.npz"], capsys)
    assert status == 0
    assert "ElectrodeSystem(4 electrodes" in said
    assert "electrode 2: Electrode(label 7, 0.02 ohm m^2), 320 mm^2" in said
    Z = np.loadtxt(tmp_path / "Z.csv", delimiter=",")
    transfer = Z[0, 2] - Z[0, 3] - Z[1, 2] + Z[1, 3]
    assert f"current 0 to 1, voltage 2 less 3: {transfer:.8g} ohm" in said
    stored = np.load(tmp_path / "phi.npz")
    assert stored["currents"][0] == pytest.approx([1e-3, 0, 0, -1e-3], abs=1e-15)
    assert stored["voltages"][0] == pytest.approx(1e-3 * (Z[0] - Z[3]) + stored["voltages"].mean())
    held = ["--voltages", 1.0, "nan", "nan", 0.0, "--currents", 0, 1e-4, 0, 0]
    said, _, status = typed([*montage, "--config", tmp_path / "montage.yaml", *held], capsys)
    assert status == 0
    assert "electrode 0: 1 V" in said


@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        ([], "an electrode is needed", 2),
        (["--disk", 0.02, 0.024, 0.0], "expected 4 arguments", 2),
        (["--disk", 0.02, 0.024, 0.0, 0.004], "electrodes[0] lies off the body", 1),
        (["--label", 8, "--label", 7], "no voxel has the label 8", 1),
        (["--label", 7, "--out", "Z.txt"], "impedances are written as", 1),
        (["--label", 7, "--figure", "Z.txt"], "a picture is written as", 1),
        (["--label", 7, "--contact-impedance", 0.1, 0.2], "one for each of 1 electrodes", 2),
        (["--label", 7, 3, "--contact-impedance", -1], "must be > 0 ohm m^2", 1),
        (["--faces", "nowhere.txt"], "nowhere.txt", 1),
    ],
)
def test_what_was_mistyped_is_one_line(montage, words, said, status, capsys):
    _, error, left = typed([*montage, *words], capsys)
    assert left == status
    assert said in error
    assert error.count("\n") == 1
