"""The page in a real Chromium: place, drag, change, export, by pointer, finger and key."""

import threading
import time

import numpy as np
import pytest

from physics_hybrid.problems.potential.evidence.explorer import (
    DESK,
    PHONE,
    browser,
    click,
    missing,
    placed,
    resize,
    settled,
    tables,
)
from physics_hybrid.problems.potential.explorer.answers import Explorer
from physics_hybrid.problems.potential.explorer.server import Page, address, listening

pytestmark = [
    pytest.mark.slow,
    pytest.mark.program,
    pytest.mark.skipif(bool(missing()), reason=missing() or "a browser is there"),
]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def chromium(downloads):
    with browser(DESK, downloads) as driver:
        yield driver


@pytest.fixture(scope="module")
def where(specimen):
    """The address of a page that is served in this process."""
    page = Page(Explorer(specimen, specimen.first_place(), asked={"tolerance": 1e-4}))
    server = listening(page, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield address(server, "127.0.0.1", page)
    server.shutdown()
    server.server_close()


@pytest.fixture
def driver(chromium, where):
    """The page, just loaded and answered. No test leaves an error in the console."""
    resize(chromium, DESK)
    chromium.get_log("browser")
    chromium.get(where)
    settled(chromium)
    yield chromium
    refusals = "422 (UNPROCESSABLE ENTITY)"  # the browser's own line for what is refused
    errors = [e for e in chromium.get_log("browser") if refusals not in e["message"]]
    assert errors == []


def scene(driver, name="good"):
    return driver.execute_script(f"return explorer.{name}")


def text(driver, name):
    return driver.execute_script(f"return document.getElementById('{name}').textContent")


def hidden(driver, name):
    return driver.execute_script(f"return document.getElementById('{name}').hidden")


def paths(driver, kind):
    """How many pieces the lines of a kind have in all sections."""
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map("
        "(p) => (p.getAttribute('d') ?? '').split('M').length - 1)",
        f".{kind}",
    )


def test_a_click_places_the_electrode_and_everything_is_drawn(driver, specimen):
    before = driver.execute_script("return explorer.figures[1].image.getAttribute('href')")
    click(driver, 0, (0.55, 0.5))
    timing = settled(driver, 2)
    placed = scene(driver)
    assert placed["at"] == placed["cut"]
    assert placed["at"][2] == pytest.approx(0.55 * specimen.original.extent[2], abs=1e-3)
    assert placed["at"][1] == pytest.approx(0.5 * specimen.original.extent[1], abs=1e-3)
    assert driver.execute_script("return explorer.figures[1].image.getAttribute('href')") != before
    for kind in ("equipotentials", "currents", "outlines"):
        assert min(paths(driver, kind)) > 0, kind
    assert "solver" in text(driver, "engine")
    assert "after" in text(driver, "residual")
    assert "at most" in text(driver, "bound")
    assert "mV" in text(driver, "status")
    assert 0 < timing["shown"] - timing["began"] < timing["bounded"] - timing["began"]


def test_a_drag_ends_where_it_ends_and_what_was_overtaken_is_never_asked(driver):
    from selenium.webdriver import ActionChains

    mark = driver.find_elements("css selector", ".section .mark.at")[0]
    chain = ActionChains(driver, duration=10).click_and_hold(mark)
    for _ in range(12):
        chain.move_by_offset(1, 1)
    chain.release().perform()
    timing = settled(driver, 2)
    last = driver.execute_script("return explorer.asking.count")
    assert timing["number"] == last
    assert scene(driver) == scene(driver, "scene")
    drawn = driver.execute_script("return explorer.timings.map((t) => t.number)")
    assert drawn == sorted(drawn)
    assert len(drawn) + driver.execute_script("return explorer.asking.dropped") == last
    assert driver.execute_script("return explorer.asking.dropped") > 0


def test_keys_move_it_by_a_voxel(driver, specimen):
    from selenium.webdriver.common.keys import Keys

    h, before = specimen.original.spacing, np.array(scene(driver)["at"])
    coronal = driver.find_elements("css selector", ".section")[1]
    driver.execute_script("arguments[0].focus()", coronal)
    for number, key, axis, sign in (
        (2, Keys.ARROW_UP, 0, 1),
        (3, Keys.ARROW_RIGHT, 2, 1),
        (4, Keys.PAGE_DOWN, 1, -1),
    ):
        driver.switch_to.active_element.send_keys(key)
        settled(driver, number)
        before[axis] += sign * h[axis]
        np.testing.assert_allclose(scene(driver)["at"], before, atol=1e-8)
    assert "Arrow keys move the electrode" in coronal.get_attribute("aria-label")


def test_everything_is_reached_with_the_tab_key(driver):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver.execute_script("document.activeElement.blur()")
    met = set()
    for _ in range(60):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        met.add(
            driver.execute_script(
                "const e = document.activeElement;"
                "return e.dataset.name ?? e.dataset.kind ?? e.id ?? e.name"
            )
        )
    assert {"Transverse", "Coronal", "Sagittal", "current", "reset", "png", ".npz"} <= met


def test_a_finger_drags_the_mark_and_taps_place(driver):
    resize(driver, PHONE)
    time.sleep(0.3)
    width = driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= PHONE[0]
    x, y = driver.execute_script(
        "const r = document.querySelector('.section .mark.at circle').getBoundingClientRect();"
        "return [r.left + r.width / 2, r.top + r.height / 2]"
    )
    before = scene(driver)["at"]

    def touch(kind, *points):
        driver.execute_cdp_cmd(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]},
        )

    touch("touchStart", (x, y))
    for step in range(1, 7):
        touch("touchMove", (x + 2 * step, y))
    touch("touchEnd")
    settled(driver, 2)
    dragged = scene(driver)["at"]
    assert dragged[2] > before[2] + 0.001
    assert dragged[0] == pytest.approx(before[0], abs=1e-8)
    number = driver.execute_script("return explorer.asking.count")
    touch("touchStart", (x, y + 30))
    touch("touchEnd")
    settled(driver, number + 1)
    assert scene(driver)["at"][1] < dragged[1] - 0.001


def test_a_slider_changes_a_tissue_and_reset_brings_it_back(driver, specimen):
    muscle = specimen.names.index("muscle")
    first = text(driver, "range")
    slider = driver.find_elements("css selector", "#tissues input[type=range]")[muscle]
    driver.execute_script(
        "arguments[0].value = Number(arguments[0].value) - 1;"
        "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
        slider,
    )
    settled(driver, 2)
    assert scene(driver)["sigma"][muscle] == pytest.approx(specimen.sigma[muscle] / 10, rel=0.01)
    assert text(driver, "range") != first
    driver.find_element("id", "reset").click()
    settled(driver, 3)
    assert scene(driver)["sigma"] == pytest.approx(list(specimen.sigma))
    assert text(driver, "range") == first


def test_a_return_electrode_makes_a_pair_and_goes_away(driver):
    driver.find_element("css selector", "input[value=returns]").click()
    click(driver, 1, (0.5, 0.3))
    settled(driver, 2)
    assert text(driver, "ends") == "at the return electrode"
    assert len(driver.find_elements("css selector", ".mark.returns")) == 3
    driver.find_element("id", "remove").click()
    settled(driver, 3)
    assert scene(driver)["returns"] is None
    assert text(driver, "ends") == "at the cut ends (0 V)"


def typed(driver, selector, value):
    from selenium.webdriver.common.keys import Keys

    field = driver.find_element("css selector", selector)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(value, Keys.ENTER)
    return field


def wait_for_refusal(driver):
    end = time.monotonic() + 20
    while hidden(driver, "message") and time.monotonic() < end:
        time.sleep(0.02)
    return text(driver, "said")


@pytest.mark.parametrize(
    ("selector", "value", "said"),
    [
        ("#current", "much", "the current must be a finite number"),
        ("#tissues input[type=text]", "-1", "the conductivity of skin (S/m) must be > 0; got -1"),
        ("#place input", "abc", "the place of the electrode must be a finite number"),
        ("#place input", "9999", "The electrode would lie outside the picture"),
    ],
)
def test_bad_input_is_said_and_the_picture_stays(driver, selector, value, said):
    picture = "return explorer.figures.map((f) => f.image.getAttribute('href'))"
    before, kept = driver.execute_script(picture), scene(driver)
    field = typed(driver, selector, value)
    assert said in wait_for_refusal(driver)
    assert driver.execute_script(picture) == before
    assert scene(driver) == scene(driver, "scene") == kept
    if "outside" not in said and "place" not in said:
        assert field.get_attribute("aria-invalid") == "true"
    typed(driver, "#current", "2")
    settled(driver, 3)
    assert hidden(driver, "message")
    assert scene(driver)["current"] == pytest.approx(2e-3)


def test_an_electrode_in_air_is_offered_the_nearest_tissue(driver, specimen):
    click(driver, 0, (0.03, 0.5))
    assert "in air" in wait_for_refusal(driver)
    driver.find_element("id", "close").click()
    assert hidden(driver, "message")
    click(driver, 0, (0.03, 0.5))
    assert "in air" in wait_for_refusal(driver)
    driver.find_element("id", "nearest").click()
    settled(driver, 4)
    assert specimen.original.in_tissue(np.array(scene(driver)["at"]))
    assert hidden(driver, "message")


def test_layers_can_be_hidden(driver):
    driver.find_element("css selector", "input[value=currents]").click()
    shown = "return getComputedStyle(document.querySelector('.currents')).display"
    assert driver.execute_script(shown) == "none"
    driver.find_element("css selector", "input[value=currents]").click()
    assert driver.execute_script(shown) == "inline"


def test_files_are_exported(driver, downloads, specimen):
    import physics_hybrid as ph

    for kind, name in ((".npz", "potential.npz"), ("png", "potential.png")):
        driver.find_element("css selector", f"[data-kind='{kind}']").click()
        end = time.monotonic() + 30
        while not (downloads / name).exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert (downloads / name).exists(), kind
    found = np.load(downloads / "potential.npz")["phi"]
    at = scene(driver)["at"]
    field = ph.solve(specimen.original, at, tolerance=1e-4, progress=False)
    np.testing.assert_allclose(found, field.phi, rtol=1e-9, atol=1e-15)
    from PIL import Image

    image = np.asarray(Image.open(downloads / "potential.png").convert("RGB")).astype(int)
    assert min(image.shape[:2]) > 400
    coloured = (np.ptp(image, axis=2) > 40).mean()  # the sections are in it, and colours
    assert 0.1 < coloured < 0.9


def test_an_explorer_that_has_ended_is_said(driver, where):
    driver.execute_script("window.fetch = () => Promise.reject(new TypeError('gone'))")
    typed(driver, "#current", "3")
    assert "does not answer" in wait_for_refusal(driver)


def test_nothing_is_loaded_from_elsewhere(driver, where):
    loaded = driver.execute_script(
        "return performance.getEntriesByType('resource').map((e) => e.name)"
    )
    here = where.split("/?")[0]
    assert len(loaded) > 5
    assert all(name.startswith((here, "data:", "blob:")) for name in loaded)


def run_lines(driver, body):
    """The result of a script that has the module of the current lines."""
    script = (
        "const done = arguments[0]; import('/current_lines.js').then(({Sheet, currentLines}) => {"
        f"{body}}}).catch((e) => done(String(e)))"
    )
    found = driver.execute_async_script(script)
    assert not isinstance(found, str), found
    return found


def test_current_lines_of_a_turning_field_close_with_the_second_order(driver):
    """J = (-x, y) about a centre runs in circles; bilinear J is exact, the midpoint rule is not."""
    gaps = run_lines(
        driver,
        """
        const n = 21, J = new Float32Array(2 * n * n);
        for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
          J[2 * (i * n + j)] = j - 10; J[2 * (i * n + j) + 1] = -(i - 10) || 1e-12;
        }
        const sheet = new Sheet({J, size: [n, n], spacing: [1, 1]});
        done([256, 512, 1024].map((steps) => {
          const path = sheet.followed(10.5 + 6, 10.5, (2 * Math.PI * 6) / steps, steps);
          const [up, across] = path.at(-1);
          return path.length === steps + 1 ? Math.hypot(up - 16.5, across - 10.5) : NaN;
        }))""",
    )
    orders = np.log2(np.array(gaps[:-1]) / gaps[1:])
    assert gaps[-1] < 1e-4
    assert (orders > 1.85).all(), gaps


def test_current_lines_of_a_point_run_outwards_and_apart(driver):
    lines = run_lines(
        driver,
        """
        const n = 31, J = new Float32Array(2 * n * n);
        for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
          const [a, b] = [2 * (i - 15), j - 15], r = Math.hypot(a, b) || 1;
          J.set([a / r ** 3, b / r ** 3], 2 * (i * n + j));
        }
        const sheet = new Sheet({J, size: [n, n], spacing: [2, 1], electrodes: [[31, 15.5]]});
        done(currentLines(sheet, 4))""",
    )
    assert len(lines) > 8
    centre, spacing = np.array([31.0, 15.5]), np.array([2.0, 1.0])
    for line in map(np.array, lines):
        away = np.linalg.norm(line - centre, axis=1)
        assert (np.diff(away) > 0).all()
        assert np.linalg.norm((line - centre) / spacing, axis=1).min() > 1
        far = away > 6  # nearer, J is not linear between centres
        angle = np.unwrap(np.arctan2(*(line[far] - centre).T))
        assert np.ptp(angle) < 0.06
    for k, one in enumerate(lines):
        for other in lines[:k]:
            distance = np.linalg.norm(np.array(one)[:, None] - np.array(other)[None], axis=-1)
            assert distance.min() > 1.9  # half of `apart`, but for a rounding


def test_a_line_ends_where_nothing_flows_in_the_plane(driver):
    """J points to a line from both sides: what comes to it passes into the third direction."""
    path = run_lines(
        driver,
        """
        const n = 20, J = new Float32Array(2 * n * n);
        for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
          J.set([0, 9.7 - j], 2 * (i * n + j));
        }
        done(new Sheet({J, size: [n, n], spacing: [1, 1]}).followed(10, 2, 0.5))""",
    )
    across = np.array(path)[:, 1]
    assert (np.diff(across) > 0).all()
    assert abs(across[-1] - 10.2) <= 0.5


def test_no_line_enters_air(driver):
    lines = run_lines(
        driver,
        """
        const n = 20, J = new Float32Array(2 * n * n);
        for (let i = 0; i < n; i++) for (let j = 4; j < 16; j++) J.set([1, 0.3], 2 * (i * n + j));
        done(currentLines(new Sheet({J, size: [n, n], spacing: [1, 1]}), 3))""",
    )
    places = np.concatenate([np.array(line) for line in lines])
    assert len(lines) > 3
    assert places[:, 1].min() >= 4
    assert places[:, 1].max() <= 16
    slopes = [np.diff(np.array(line), axis=0) for line in lines]
    np.testing.assert_allclose(np.concatenate(slopes)[:, 1] / np.concatenate(slopes)[:, 0], 0.3)


def test_waits_are_measured_and_become_a_table(driver):
    waits = placed(driver, 2)
    for wait in waits:
        assert 0 < wait["drawn"] < wait["bounded"]
        assert wait["field_processor"] > 0
        assert wait["bound_processor"] > 0
    about = {"hardware": "a CPU", "commit": "0" * 40, "torch": "2", "date": "2026-01-01"}
    found = {"grid": [24, 12, 12], "waits": waits, "load": 0.5, "processors": 2, **about}
    shown = tables(found)
    assert "2 electrodes at 24x12x12" in shown
    assert shown.count("\n| ") == 6
