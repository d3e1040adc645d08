"""Training goes on from the weights inside the package."""

from pathlib import Path

import pytest
import torch

from physics_hybrid.evidence.bench import configuration
from physics_hybrid.models.model_files import CheckpointError
from physics_hybrid.run.load import SHIPPED, recipe_of, weights_of


@pytest.mark.skipif(not (SHIPPED / "limb.mdlus").exists(), reason="no model is shipped")
def test_the_shipped_weights_are_those_of_the_experiment_and_learn_whole_tensors():
    config = configuration(["run=x", "experiment=fine_tuned", "data.sigma_components=6"])
    source = weights_of(Path(config["training"]["init_from"]))
    recipe = recipe_of(config)
    statistics = recipe.statistics_of(source)
    assert statistics["sigma_mean"][:3] == source.sigma_mean.flatten().tolist()
    assert statistics["sigma_mean"][3:] == [0.0] * 3
    assert statistics["sigma_std"][3:] == [1.0] * 3
    model = recipe.build_model(statistics)
    model.load_state_dict(recipe.widened(source.state_dict(), source, model))
    # what comes behind the first layers is as it was
    for name, weight in source.backbone.down.state_dict().items():
        assert torch.equal(model.backbone.down.state_dict()[name], weight)


def test_a_name_that_is_neither_a_path_nor_shipped_is_refused():
    with pytest.raises(CheckpointError, match="arm does not exist"):
        weights_of(Path("arm"))
