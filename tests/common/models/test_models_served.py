"""Networks in onnxruntime, and inputs as they were stored."""

from pathlib import Path

import pytest
import torch
from torch import nn

from common.models.normalised import as_stored
from common.models.served import onnx_session, quiet_exporter


@pytest.mark.slow
def test_a_model_in_memory_and_its_file_give_the_networks_numbers(tmp_path: Path) -> None:
    network, inputs = nn.Linear(3, 2).eval(), torch.randn(4, 3)
    with quiet_exporter():
        program = torch.onnx.export(
            network, (torch.zeros(2, 3),), dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False
        )
    assert program is not None
    model = program.model_proto.SerializeToString()
    (tmp_path / "network.onnx").write_bytes(model)
    for given in (model, tmp_path / "network.onnx"):
        session = onnx_session(given, threads=1)
        (outputs,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
        torch.testing.assert_close(torch.from_numpy(outputs), network(inputs).detach())


@pytest.mark.parametrize("scale", [0.5, [2.0, 0.0, 4.0]])
def test_inputs_are_given_back_as_they_were_stored(scale: float | list[float]) -> None:
    stored = torch.tensor([[1.0, 3.0, 5.0], [2.0, 3.0, 7.0]])
    facts = {"offset": [1.0, 3.0, 4.0], "scale": scale}
    inputs = (stored - torch.tensor(facts["offset"])) * torch.tensor(scale)
    assert torch.equal(as_stored(inputs, facts), stored)
