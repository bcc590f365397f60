"""Makes schemas.json: 100 schemas as pydantic writes them, of plain models and of tools.

python schemas.py, with pydantic 2.
"""

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, Optional, Union
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model


class Color(Enum):
    red = "red"
    green = "green"
    blue = "blue"


class Point(BaseModel):
    x: float
    y: float


class Address(BaseModel):
    street: str
    city: str
    zip: Optional[str] = None


class Person(BaseModel):
    name: str
    age: int
    address: Optional[Address] = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=0, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"]
    good: bool


class Tree(BaseModel):
    value: int
    children: list["Tree"] = []


class Linked(BaseModel):
    text: str
    next: Optional["Linked"] = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    size: int


# The type of one field, alone and in company.
FIELDS = {
    "text": (str, ...),
    "short": (Annotated[str, Field(max_length=40)], ...),
    "code": (Annotated[str, Field(pattern=r"^[A-Z]{3}-\d{4}$")], ...),
    "count": (int, ...),
    "share": (Annotated[float, Field(ge=0, le=1)], ...),
    "price": (Annotated[float, Field(gt=0, multiple_of=0.01)], ...),
    "dozens": (Annotated[int, Field(multiple_of=12, ge=0)], ...),
    "amount": (Decimal, ...),
    "size": (float, ...),
    "good": (bool, ...),
    "color": (Color, ...),
    "level": (Literal["low", "high", 3], ...),
    "day": (date, ...),
    "hour": (time, ...),
    "at": (datetime, ...),
    "length": (timedelta, ...),
    "id": (UUID, ...),
    "tags": (list[str], ...),
    "few": (Annotated[list[int], Field(min_length=1, max_length=3)], ...),
    "colors": (set[Color], ...),
    "pair": (tuple[int, str], ...),
    "scores": (dict[str, int], ...),
    "anything": (dict, ...),
    "maybe": (Optional[str], None),
    "either": (Union[int, str], ...),
    "points": (list[Point], ...),
    "person": (Person, ...),
    "pet": (Annotated[Union[Cat, Dog], Field(discriminator="kind")], ...),
    "pets": (list[Annotated[Union[Cat, Dog], Field(discriminator="kind")]], ...),
    "tree": (Tree, ...),
    "linked": (Linked, ...),
    "open": (Open, ...),
    "closed": (Closed, ...),
}

TOOLS = {
    "get_weather": {"city": (str, ...), "unit": (Literal["c", "f"], "c")},
    "search": {"query": (str, ...), "limit": (Annotated[int, Field(ge=1, le=50)], 10)},
    "send_email": {"to": (list[str], ...), "subject": (str, ...), "body": (str, ...)},
    "create_event": {"title": (str, ...), "start": (datetime, ...), "guests": (list[str], [])},
    "run_sql": {"statement": (str, ...), "parameters": (dict, {})},
    "read_file": {"path": (str, ...), "lines": (Optional[tuple[int, int]], None)},
    "write_file": {"path": (str, ...), "content": (str, ...)},
    "set_timer": {"minutes": (Annotated[int, Field(gt=0)], ...), "label": (Optional[str], None)},
    "convert": {"amount": (float, ...), "source": (str, ...), "target": (str, ...)},
    "now": {},
    "plot": {"points": (list[Point], ...), "color": (Color, Color.red)},
    "book": {"passenger": (Person, ...), "day": (date, ...), "seats": (int, 1)},
    "think": {"thought": (str, ...)},
    "edit": {"changes": (list[Closed], ...)},
    "ask": {"question": (str, ...), "options": (list[str], ...)},
    "label": {"labels": (dict[str, bool], ...)},
    "rate": {"stars": (Annotated[int, Field(ge=1, le=5)], ...), "why": (str, "")},
}


def model(name, fields):
    return create_model(name, **fields).model_json_schema()


def schemas():
    made = {f"one_{name}": model("One", {name: field}) for name, field in FIELDS.items()}
    names = list(FIELDS)
    for start in range(33):
        chosen = [names[(start + step) % len(names)] for step in (0, 7, 16)]
        made["three_" + "_".join(chosen)] = model("Three", {name: FIELDS[name] for name in chosen})
    for name, fields in TOOLS.items():
        made[f"tool_{name}"] = model(name, fields)
    # What is no object at the top, and several tools at once.
    for name, kind in [("list_person", list[Person]), ("union", Union[Cat, Dog]), ("map", dict[str, Point])]:
        made[f"top_{name}"] = TypeAdapter(kind).json_schema()
    for start in range(100 - len(made)):
        options = [model(name, TOOLS[name]) for name in list(TOOLS)[start : start + 3]]
        made[f"tools_{start}"] = {"anyOf": [{k: v for k, v in o.items() if k != "$defs"} for o in options],
                                  "$defs": {k: v for o in options for k, v in o.get("$defs", {}).items()}}
    return made


if __name__ == "__main__":
    made = schemas()
    assert len(made) == 100, len(made)
    text = "{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in made.items()) + "\n}\n"
    Path(__file__).with_name("schemas.json").write_text(text)
