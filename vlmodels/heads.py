"""A classifier of fixed classes, for methods that score videos without class texts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vlmodels.errors import UserError


class ClassHead(nn.Module):
    """Dropout and a linear layer with a row per class that it is trained on: ``width C + C`` parameters.

    Args:
        width: of its input.
        classes: names, in the order of its rows.
        dropout: of its input.
        std: of the weights' normal initialisation; biases start at 0.

    Raises:
        UserError: fewer than two classes.
    """

    def __init__(self, width: int, classes: Sequence[str], *, dropout: float = 0.0, std: float = 0.02) -> None:
        super().__init__()
        if len(classes) < 2:
            raise UserError(
                "this method has a classifier of fixed classes and is built for those that it trains on: "
                f"give it at least 2 class names, not {len(classes)}"
            )
        self.rows = {name: row for row, name in enumerate(classes)}
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(width, len(classes))
        nn.init.normal_(self.linear.weight, std=std)
        nn.init.zeros_(self.linear.bias)

    def covers(self, names: Sequence[str]) -> bool:
        """Whether it was built for all these classes; others can only be scored by their texts."""
        return all(name in self.rows for name in names)

    def forward(self, x: Tensor, names: Sequence[str]) -> Tensor:
        """Logits (B,C) of ``x`` (B,width) for ``names``, which it covers, in fp32."""
        logits: Tensor = self.linear(self.dropout(x)).float()
        if tuple(names) == tuple(self.rows):
            return logits
        return logits[:, [self.rows[name] for name in names]]
