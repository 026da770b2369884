"""The form of an ablation's table in a TOML file, and what is said about mistakes in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pydantic

from vlmodels.errors import UserError, nearest, refuse

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def read_table(content: Any, place: str) -> Table:
    """Check the content of a table; ``place`` names it in messages.

    Raises:
        UserError: the table has mistakes; one message names them all.
    """
    try:
        table = Table.model_validate(content)
    except pydantic.ValidationError as error:
        raise UserError(f"{place}: {'; '.join(map(_describe_problem, error.errors()))}") from error
    refuse([f"{place}: {problem}" for problem in table.problems()])
    return table


class PrintedRow(pydantic.BaseModel):
    """A row that is not run: a label and what is printed."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    label: str = pydantic.Field(min_length=1)
    printed: list[float]


class SettingRow(PrintedRow):
    """A row with its setting, as in ``--set``."""

    setting: dict[str, str] = pydantic.Field(alias="set", min_length=1)


class Table(pydantic.BaseModel):
    """A table, as ``ablation_file`` describes it."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    title: str
    source: str
    protocol: Literal["b2n", "few_shot", "supervised", "zero_shot", "retrieval"]
    preset: str
    data: str
    columns: list[str] = pydantic.Field(min_length=1)
    rows: list[SettingRow] = pydantic.Field(min_length=1)
    notes: list[str] = []
    baseline: PrintedRow | None = None

    def problems(self) -> list[str]:
        """List the problems that the types of the fields do not exclude."""
        rows = [*self.rows, self.baseline] if self.baseline else self.rows
        return [
            f"'{row.label}' prints {len(row.printed)} numbers for the {len(self.columns)} columns "
            f"({', '.join(self.columns)}); write one for each, or printed = []"
            for row in rows
            if len(row.printed) not in (0, len(self.columns))
        ]


def _describe_problem(problem: ErrorDetails) -> str:
    """Describe one of pydantic's problems with its place, such as "row 2 printed"."""
    location, kind = problem["loc"], problem["type"]
    words = [str(part + 1) if isinstance(part, int) else part for part in location]
    place = " ".join(words).replace("rows ", "row ")
    if kind == "missing":
        return f"{place} is missing"
    if kind == "extra_forbidden":
        known = [field.alias or name for model in (Table, SettingRow) for name, field in model.model_fields.items()]
        return f"{place} is unknown{nearest(str(location[-1]), known)}"
    if kind in ("too_short", "string_too_short"):
        return f"{place} is empty"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    if "set" in location:
        message += '; settings are texts under quoted keys, such as "method.dims" = "64"'
    return f"{place}: {message}"
