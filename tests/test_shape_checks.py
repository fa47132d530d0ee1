import jaxtyping
import pytest
import torch

from vitral.models.layers import Attention
from vitral.models.position import resize_position_table


def test_tensors_that_are_not_as_annotated_are_found_while_tests_run() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="images|tokens"):
        Attention(4, 2)(torch.zeros(2, 4))
    with pytest.raises(jaxtyping.TypeCheckError, match="table"):
        resize_position_table(
            torch.zeros(2, 4, 3), old_grid=(2, 2), new_grid=(3, 3), num_prefix_tokens=0
        )


@pytest.mark.usefixtures("without_shape_checks")
def test_the_checks_can_be_left_out() -> None:
    Attention(4, 2)(torch.zeros(1, 2, 3, 4)[0])
    assert resize_position_table(
        torch.zeros(2, 4, 3), old_grid=(2, 2), new_grid=(3, 3), num_prefix_tokens=0
    ).shape == (2, 9, 3)
