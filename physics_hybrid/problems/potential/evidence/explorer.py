"""How long a person waits for the explorer: from the click in a browser to the painted picture.

    python -m physics_hybrid.problems.potential.evidence.explorer [--times 30]
        [--grid 48 24 24] [--output explorer.json] [--pictures FOLDER]

Starts `python -m physics_hybrid explore` and a headless Chromium (Debian: apt-get install chromium
chromium-driver; pip install 'physics_hybrid[dev]'), clicks electrodes into the transverse section,
and takes the times that the page takes: the event's own time stamp, and when the frame with the
answer was painted. `python -m physics_hybrid pages --explorer explorer.json` puts the table into
docs/explorer.md.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from physics_hybrid.checks import at_least
from physics_hybrid.command_line import readable_errors
from physics_hybrid.report.markdown import table
from physics_hybrid.run.provenance import surroundings
from physics_hybrid.writing import write_text

#: Width and height of a desk's window and of a phone, px; screen pixels for each in pictures.
DESK, PHONE = (1280, 860), (390, 844)
SHARP = 2
#: Seconds that an answer may take before it is given up.
PATIENCE = 120.0
#: Milliseconds from a click to the painted answer that are asked for.
ASKED = 300.0
#: How far from the middle of a section electrodes are placed, and from the one before, which a
#: click would take hold of: shares of the section.
AROUND, APART = 0.17, 0.08
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def missing() -> str:
    """Why no browser can be driven here; '' where one can."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is missing (Debian: apt-get install chromium chromium-driver)"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is missing (pip install 'physics_hybrid[dev]')"
    return ""


@contextmanager
def browser(size: tuple[int, int], downloads: Path | None = None) -> Iterator[Any]:
    """A headless Chromium with a window of a size, px, that keeps a log of its console.

    Raises
    ------
    ValueError
        No Chromium, or no driver.
    """
    if missing():
        raise ValueError(missing())
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--window-size={size[0]},{size[1]}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if downloads is not None:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.execute_cdp_cmd("Performance.enable", {})
        resize(driver, size)
        yield driver
    finally:
        driver.quit()


def resize(driver: Any, size: tuple[int, int], sharp: int = 1) -> None:
    """Give the page a size, px; a narrow one is a phone's, with touch. sharp : screen pixels."""
    phone = size[0] < 500
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": sharp, "mobile": phone},
    )
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})


@contextmanager
def explorer(words: list[str]) -> Iterator[str]:
    """The address of `python -m physics_hybrid explore`, which is ended with Ctrl-C."""
    command = [sys.executable, "-m", "physics_hybrid", "explore", "--port", "0", *words]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        lines = iter(started.stdout)
        said = next((line for line in lines if line.startswith("open ")), "")
        if not said:
            raise ValueError(f"the explorer did not start: {' '.join(command)}")
        yield said.split()[1]
    finally:
        started.send_signal(signal.SIGINT)
        started.wait(30)


def settled(driver: Any, least: int = 1) -> dict[str, Any]:
    """The times of the newest question, once it is drawn and bounded.

    least : the number that it has at least.
    """
    script = (
        "const last = window.explorer?.timings.at(-1);"
        "return last?.bounded && last.number === explorer.asking.count ? last : null"
    )
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found: dict[str, Any] | None = driver.execute_script(script)
        if found and found["number"] >= least:
            return found
        time.sleep(0.05)
    raise RuntimeError(f"the page had no answer within {PATIENCE:.0f} s")


def picture(driver: Any, path: Path) -> Path:
    """What the window shows, and what is below it."""
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(shot["data"]))
    return path


def click(driver: Any, section: int, share: tuple[float, float]) -> None:
    """Click into the plot of a section. share : across and down, of its width and height."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    place = driver.execute_script(
        "const f = explorer.figures[arguments[0]], b = f.svg.getBoundingClientRect(),"
        " r = f.back.getBoundingClientRect();"
        "return [r.left - b.left - b.width / 2, r.top - b.top - b.height / 2, r.width, r.height]",
        section,
    )
    svg = driver.find_elements(By.CSS_SELECTOR, ".section")[section]
    x, y = (place[k] + share[k] * place[k + 2] for k in (0, 1))
    ActionChains(driver).move_to_element_with_offset(svg, int(x), int(y)).click().perform()


def measure(times: int, grid: list[int], pictures: Path | None) -> dict[str, Any]:
    """Waits for electrodes placed one after the other, as JSON.

    Raises
    ------
    ValueError
        No browser; the explorer does not start.
    """
    with explorer(["--grid", *map(str, grid)]) as address, browser(DESK) as driver:
        driver.get(address)
        settled(driver)
        waits = placed(driver, times + 1)
        errors = [entry["message"] for entry in driver.get_log("browser")]
        if pictures is not None:
            drawn(driver, pictures)
    return {
        "grid": grid,
        "waits": waits[1:],  # the first one warms up
        "console": errors,
        "load": os.getloadavg()[0],
        "processors": os.cpu_count(),
        **surroundings(torch.device("cpu")),
    }


def placed(driver: Any, times: int) -> list[dict[str, float]]:
    """Place electrodes in the middle of the transverse section; the wait for each."""
    random = np.random.default_rng(0)
    waits: list[dict[str, float]] = []
    before = np.zeros(2)
    while len(waits) < times:
        share = 0.5 + random.uniform(-AROUND, AROUND, 2)
        if np.abs(share - before).max() < APART:
            continue
        number = driver.execute_script("return explorer.asking.count")
        began = _browser_seconds(driver)
        click(driver, 0, (float(share[0]), float(share[1])))
        wait = _wait(settled(driver, number + 1))
        wait["browser_processor"] = 1e3 * (_browser_seconds(driver) - began)
        waits.append(wait)
        before = share
    return waits


def _browser_seconds(driver: Any) -> float:
    """Processor's seconds of the process that draws the page, so far."""
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(m["value"] for m in metrics if m["name"] == "ProcessTime"))


def drawn(driver: Any, folder: Path) -> None:
    """Pictures of the page on a desk and on a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("explorer.png", DESK), ("explorer_phone.png", PHONE)):
        resize(driver, size, SHARP)
        time.sleep(0.5)
        picture(driver, folder / name)


def _wait(timing: dict[str, Any]) -> dict[str, float]:
    """ms from the event to the picture and to the bound; processor's ms of the server for each."""
    return {
        "drawn": timing["shown"] - timing["began"],
        "bounded": timing["bounded"] - timing["began"],
        "field_processor": 1e3 * timing["seconds"]["processor"],
        "bound_processor": 1e3 * timing["bound"]["processor"],
    }


#: Rows of the table.
ROWS = {
    "drawn": "field, lines and sections painted, ms by the clock",
    "bounded": "with the bound, ms by the clock",
    "field_processor": "solve and sections, ms of the server's processor",
    "bound_processor": "bound, ms of the server's processor",
    "browser_processor": "the page, ms of the browser's processor",
}


def tables(found: dict[str, Any]) -> str:
    """For docs/explorer.md."""
    lines = []
    for key, what in ROWS.items():
        values = np.array([wait[key] for wait in found["waits"]])
        quantiles = [f"{q:.0f}" for q in np.quantile(values, [0, 0.5, 0.9])]
        lines.append([what, *quantiles])
    within = np.mean([wait["bounded"] <= ASKED for wait in found["waits"]])
    grid = "x".join(map(str, found["grid"]))
    return (
        f"{table(['from a click', 'least', 'median', '90 %'], lines)}\n\n"
        f"{len(found['waits'])} electrodes at {grid}; {within:.0%} within {ASKED:.0f} ms, bound"
        f" and all. Headless Chromium, load {found['load']:.1f} on {found['processors']}"
        f" processors: {found['hardware']}; commit"
        f" {found['commit'][:10]}, torch {found['torch']}, {found['date']}."
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=30, help="electrodes that are placed")
    parser.add_argument("--grid", type=int, nargs=3, default=[48, 24, 24])
    parser.add_argument("--output", type=Path, default=Path("explorer.json"))
    parser.add_argument("--pictures", type=Path, help="folder for what desk and phone show")
    given = parser.parse_args(arguments)
    with readable_errors():
        at_least(1, "--times", given.times)
        found = measure(given.times, given.grid, given.pictures)
        write_text(given.output, json.dumps(found, indent=1) + "\n")
        print(re.sub(r"<[^>]*>", "", tables(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
