import pytest
import torch

from flowsep.flow.path import FlowConfig, as_target, as_velocity, flow_matching_loss, seeded_noise, start_of, state_at


def test_path_runs_from_start_to_target():
    start, target = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    torch.testing.assert_close(state_at(torch.zeros(3), start, target, 1e-4), start)
    torch.testing.assert_close(state_at(torch.ones(3), start, target, 1e-4), target + 1e-4 * start)


def test_flowseps_loss_is_the_mean_square_of_the_velocity_error():
    config = FlowConfig()
    noise, target, output = (torch.randn(2, 8, 4, 4) for _ in range(3))
    expected = (output - (target - (1 - 1e-4) * noise)).square().mean((1, 2, 3))
    torch.testing.assert_close(flow_matching_loss(output, noise, target, config), expected)


def test_velocity_and_target_predictions_are_two_names_of_one_line():
    start, target, t = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3), torch.tensor([0.2, 0.7])
    x = state_at(t, start, target, 0.0)
    predicts_target = FlowConfig(predict="target", sigma_min=0.0)
    predicts_velocity = FlowConfig(sigma_min=0.0)
    torch.testing.assert_close(as_velocity(target, t, x, predicts_target), target - start)
    torch.testing.assert_close(as_target(target - start, t, x, predicts_velocity), target)


def test_start_is_noise_alone_or_the_mixture_in_every_stream_plus_noise():
    mixture, noise = torch.randn(1, 2, 3, 3), torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(start_of(mixture, noise, FlowConfig(streams="target+residual")), noise)
    config = FlowConfig(start="mixture", streams="target+residual", sigma=0.3)
    torch.testing.assert_close(start_of(mixture, noise, config), torch.cat([mixture, mixture], 1) + 0.3 * noise)


def test_an_items_noise_depends_on_its_seed_only():
    torch.testing.assert_close(seeded_noise((2, 3), [5, 9])[1], seeded_noise((2, 3), [9])[0])
    assert not torch.equal(*seeded_noise((2, 3), [5, 9]))


@pytest.mark.parametrize("field", ["start", "predict", "streams"])
def test_unknown_flow_settings_list_the_known(field):
    with pytest.raises(ValueError, match=f"unknown flow.{field} 'x'; choose from"):
        FlowConfig(**{field: "x"})
