"""Settings that say in one sentence what is wrong: which one, what is accepted, what was given."""

import difflib
import re
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator


class Checked(BaseModel):
    """Frozen; refuses unknown names; converts strings such as "2e-4" and "false" (papermill's -p)."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
    called: ClassVar[str] = "settings"
    """How the sentence begins."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            sentence = "; ".join(self._complaint(item) for item in error.errors())
            raise ValueError(f"{self.called}: {sentence}") from None

    @classmethod
    def _complaint(cls, item: Any) -> str:
        name, fields = ".".join(map(str, item["loc"])), cls.model_fields
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {close[0]}" if close else f"accepted are {', '.join(fields)}"
            return f"{name} is not a setting; {hint}"
        if item["type"] == "missing":
            return f"{name} must be given"
        message = re.sub(r"^(Value error, |Input |String )", "", item["msg"])
        return f"{name} {message.replace('should', 'must', 1)}, got {item['input']!r}"

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: Any) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("must not be true or false")
        return value

    def changed(self, **values: Any) -> Self:
        """The same settings with some values replaced, all checked again."""
        return type(self)(**{**self.model_dump(), **values})
