"""Typed parts of a JSON file that are written just as they were read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    Strict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)


def _check_alone(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    check(value)
    return value


Number = Annotated[float, Strict(), WrapValidator(_check_alone)]
"""An integer or a float; an integer stays one, so that 0 is not written as 0.0."""


class JsonPart(BaseModel):
    """A JSON object: fields are checked, unknown keys are kept, and the order of keys is that of the file.

    Files of older and newer versions can therefore be read, and what is read and written again is equal byte for byte.
    A null counts as a missing field where one may be missing, and is written as null.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    _keys: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="wrap")
    @classmethod
    def _keep_keys(cls, values: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(values, Mapping):
            return check(values)
        part = check({key: value for key, value in values.items() if value is not None or key not in cls._optional()})
        part._keys = tuple(values)  # noqa: SLF001 - this class's own
        return part

    @classmethod
    def _optional(cls) -> frozenset[str]:
        """Return the keys of the fields that may be missing."""
        return frozenset(f.alias or name for name, f in cls.model_fields.items() if not f.is_required())

    def to_json(self) -> dict[str, Any]:
        """Return the object as plain JSON values: the keys that were given, in their order."""
        fields = {field.alias or name: name for name, field in type(self).model_fields.items()}
        given = {key: getattr(self, name) for key, name in fields.items() if name in self.model_fields_set}
        given |= self.__pydantic_extra__ or {}
        return {key: plain_json(given.get(key)) for key in self._keys}


def plain_json(value: Any) -> Any:
    """Return parts, mappings and sequences as dicts and lists."""
    if isinstance(value, JsonPart):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: plain_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(each) for each in value]
    return value


def first_problem(error: ValidationError) -> str:
    """Return the first field that is missing or wrong, in words."""
    problem = error.errors(include_url=False)[0]
    path = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"{path} is missing"
    if problem["type"] == "value_error":  # of a validator of ours, which names the field itself
        return str(problem["ctx"]["error"])
    return f"{path}: {problem['msg'].replace('tuple', 'list')}"
