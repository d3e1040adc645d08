"""python -m physics_hybrid activations: growth against depth, figure, and refusals in a line."""

import json

import pytest
import torch

from physics_hybrid.evidence.activations import report
from physics_hybrid.verbs.activations import main

SMALL = [
    "experiment=ptychography",
    "training.device=cpu",
    "training.threads=1",
    "data.frame=16",
    "data.size=40",
    "data.lines=30",
    "data.radius=4",
    "data.step=8",
    "model.backbone.width=4",
    "model.backbone.modes=[2,2]",
]


@pytest.mark.slow
def test_growth_of_each_block_at_each_depth_and_a_figure(tmp_path, capsys):
    threads = torch.get_num_threads()
    words = ["--blocks", "rezero", "pre_norm", "--depths", "2", "6", "--output", str(tmp_path)]
    main([*SMALL, *words])
    torch.set_num_threads(threads)
    found = json.loads((tmp_path / "activations.json").read_text())
    assert found["growth"]["rezero"] == {"2": 1.0, "6": 1.0}
    assert all(value > 1.1 for value in found["growth"]["pre_norm"].values())
    deep = found["blocks"]["pre_norm"]["6"]
    assert len(deep) == 6
    assert all(taken["gradient_rms"] > 0 for taken in deep.values())
    assert "| rezero | 1 | 1 |" in capsys.readouterr().out
    assert (tmp_path / "activations.png").stat().st_size > 10_000


def test_what_runs_wrote_down_is_drawn_beside(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    taken = {"rms": 2.0, "rms_in": 1.0, "gradient_rms": 0.5}
    lines = [{"step": s, "blocks": {"a": taken, "b": taken}} for s in (0, 100)]
    (run / "activations.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    text = report({"rezero": {2: {"a": taken}}}, [run], 1e-3, tmp_path)
    assert "takes 0.1 % of a step" in text
    content = json.loads((tmp_path / "activations.json").read_text())
    assert content["runs"] == {"run": lines}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--blocks", "best"], "--blocks must be one of zero_linear"),
        (["--depths", "0"], "--depths must be at least 1; got 0"),
        ([*SMALL[:8], "model=unet2d"], "has no model.backbone.block: choose one of blocks"),
    ],
)
def test_what_was_mistyped_is_one_line(words, message, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
