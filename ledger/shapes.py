"""Record types as data: what their annotations say, compiled once, to explain every fault of a value.

The typed decoder stops at the first fault, and tells nobody which values would have been accepted. A shape
reads the same annotations, so the two cannot disagree about what a member may be; the property tests hold
them to it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from ledger.errors import Reason, Violation
from ledger.record_types import MULTILINE, Members
from ledger.values import Form


@dataclass(frozen=True, slots=True)
class String:
    """A string of `minimum` to `maximum` code points, spelled as `form` says; LF only where `multiline`."""

    minimum: int
    maximum: int | None
    form: Form | None
    multiline: bool

    def faults(self, value: object, path: str) -> Iterator[Violation]:
        """Yield what is wrong with `value`, which stands at `path`."""
        if not isinstance(value, str):
            yield _fault(path, "must be a string")
        elif len(value) < self.minimum or (self.maximum is not None and len(value) > self.maximum):
            yield _fault(path, f"must have {self.minimum} to {self.maximum} characters, has {len(value)}")
        elif "\n" in value and not self.multiline:
            yield _fault(path, "must be a single line: LF stands only in texts")
        elif self.form is not None and not self.form.accepts(value):
            yield _fault(path, f"must be {self.form.words}")


@dataclass(frozen=True, slots=True)
class Code:
    """One of a vocabulary."""

    values: tuple[str, ...]

    def faults(self, value: object, path: str) -> Iterator[Violation]:
        """Yield what is wrong with `value`, which stands at `path`."""
        if not isinstance(value, str) or value not in self.values:
            yield _fault(path, "must be a code of its vocabulary", self.values)


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer of `minimum` to `maximum`."""

    minimum: int
    maximum: int

    def faults(self, value: object, path: str) -> Iterator[Violation]:
        """Yield what is wrong with `value`, which stands at `path`."""
        if not isinstance(value, int) or isinstance(value, bool):
            yield _fault(path, "must be an integer")
        elif not self.minimum <= value <= self.maximum:
            allowed = (str(self.minimum),) if self.minimum == self.maximum else ()
            yield _fault(path, f"must be {self.minimum} to {self.maximum}", allowed)


@dataclass(frozen=True, slots=True)
class Truth:
    """One of `values`: true, or true and false."""

    values: tuple[bool, ...]

    def faults(self, value: object, path: str) -> Iterator[Violation]:
        """Yield what is wrong with `value`, which stands at `path`."""
        if not isinstance(value, bool) or value not in self.values:
            allowed = tuple("true" if each else "false" for each in self.values)
            yield _fault(path, f"must be {' or '.join(allowed)}", allowed)


@dataclass(frozen=True, slots=True)
class Items:
    """An array of `minimum` to `maximum` items of one shape."""

    item: Shape
    minimum: int
    maximum: int | None

    def faults(self, value: object, path: str) -> Iterator[Violation]:
        """Yield what is wrong with `value`, which stands at `path`."""
        if not isinstance(value, list):
            yield _fault(path, "must be a list")
            return
        if len(value) < self.minimum:
            yield _fault(path, "must not be empty: leave the member out")
        if self.maximum is not None and len(value) > self.maximum:
            yield _fault(path, f"must have at most {self.maximum} items, has {len(value)}")
        for index, item in enumerate(value):
            yield from self.item.faults(item, f"{path}[{index}]")


@dataclass(frozen=True, slots=True)
class Digests:
    """The map `withheld`: path to digest. Which paths may stand is a rule of the record type."""

    digest: Shape

    def faults(self, value: object, path: str) -> Iterator[Violation]:
        """Yield what is wrong with `value`, which stands at `path`."""
        if not isinstance(value, Mapping):
            yield _fault(path, "must be an object of paths and digests")
            return
        if not value:
            yield _fault(path, "must not be empty: leave the member out")
        for name, item in value.items():
            yield from self.digest.faults(item, join(path, name))


@dataclass(frozen=True, slots=True)
class Anything:
    """Any canonical object whose strings are single lines: data that the ledger does not read."""

    def faults(self, value: object, path: str) -> Iterator[Violation]:
        """Yield what is wrong with `value`, which stands at `path`."""
        if not isinstance(value, Mapping):
            yield _fault(path, "must be an object")
        else:
            yield from self._lines(value, path)

    def _lines(self, value: object, path: str) -> Iterator[Violation]:
        match value:
            case str() if "\n" in value:
                yield _fault(path, "must be a single line: LF stands only in texts")
            case Mapping():
                for name, item in value.items():
                    yield from self._lines(item, join(path, name))
            case list():
                for index, item in enumerate(value):
                    yield from self._lines(item, f"{path}[{index}]")


@dataclass(frozen=True, slots=True)
class Object:
    """The members of one type: their shapes, and which of them must be there."""

    type: type[Members]
    members: Mapping[str, Shape]
    required: tuple[str, ...]

    def faults(self, value: object, path: str) -> Iterator[Violation]:
        """Yield what is wrong with `value`, which stands at `path`."""
        if not isinstance(value, Mapping):
            yield _fault(path, "must be an object")
            return
        if not value:
            yield _fault(path, "must not be empty: leave the member out")
        for name in self.required:
            if name not in value:
                yield _fault(join(path, name), "is required")
        for name, item in value.items():
            shape = self.members.get(name)
            if shape is None:
                yield _fault(join(path, name), "is not a member of this type", tuple(self.members))
            else:
                yield from shape.faults(item, join(path, name))


Shape = String | Code | Integer | Truth | Items | Digests | Anything | Object


def join(path: str, name: object) -> str:
    """Return the path of the member `name` of what stands at `path`, as gRPC BadRequest writes it."""
    return f"{path}.{shown(name)}" if path else shown(name)


def shown(name: object) -> str:
    """Return a name as it may stand in a message: printable ASCII, at most 128 characters."""
    text = ascii(name)[1:-1] if isinstance(name, str) else ascii(name)
    return text[:128]


@cache
def shape_of(annotation: Any) -> Shape:
    """Return the shape of a record type, or of any annotation that stands in one."""
    notes: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *found = get_args(annotation)
        notes = tuple(found)
    bounds = _bounds(notes)
    if isinstance(annotation, type) and issubclass(annotation, Members):
        return _object(annotation)
    if annotation is str:
        forms = [note for note in notes if isinstance(note, Form) and note is not MULTILINE]
        return String(
            bounds.min_length or 0, bounds.max_length, forms[0] if forms else None, MULTILINE in notes
        )
    if annotation is bool:
        return Truth((True, False))
    if annotation is int and bounds.ge is not None and bounds.le is not None:
        return Integer(int(bounds.ge), int(bounds.le))
    match get_origin(annotation), get_args(annotation):
        case origin, values if origin is Literal:
            return _constant(values)
        case origin, (item, rest) if origin is tuple and rest is Ellipsis:
            return Items(shape_of(item), bounds.min_length or 0, bounds.max_length)
        case origin, (_, item) if origin is Mapping:
            return Anything() if item is Any else Digests(shape_of(item))
    raise TypeError(f"no shape for {annotation!r}")


def spelling_of(record_type: type[Members]) -> Callable[[Any], bool] | None:
    """Return a check that every string of a typed value has its form, and that no object in it is empty.

    None where there is nothing to be checked. This is what the typed decoder leaves open: it knows lengths,
    codes and ranges, but its patterns cost more than these calls. LF is left out here too: it is counted over
    the whole record.
    """
    always, sometimes = _plan(_object(record_type))
    if not always and not sometimes:
        return None
    required = _getter(always)
    required_checks = tuple(always.values())
    optional = _getter(sometimes)
    optional_checks = tuple(sometimes.values())
    absent = (None,) * len(sometimes)

    def holds(value: Any) -> bool:
        for item, accepts in zip(required(value), required_checks, strict=True):
            if not accepts(item):
                return False
        items = optional(value)
        if items == absent:
            return True
        for item, accepts in zip(items, optional_checks, strict=True):
            if item is not None and not accepts(item):
                return False
        return True

    return holds


_Checks = dict[str, Callable[[Any], object]]


def _plan(shape: Object) -> tuple[_Checks, _Checks]:
    """Return the checks of members that are always there, and of others, by dotted name."""
    always: _Checks = {}
    sometimes: _Checks = {}
    for name, member in shape.members.items():
        if name in shape.required and isinstance(member, Object) and member.required:
            inner_always, inner_sometimes = _plan(member)
            always |= {f"{name}.{inner}": check for inner, check in inner_always.items()}
            sometimes |= {f"{name}.{inner}": check for inner, check in inner_sometimes.items()}
        elif (check := _spelling(member)) is not None:
            (always if name in shape.required else sometimes)[name] = check
    return always, sometimes


def _getter(checks: _Checks) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that gets the members of these dotted names, as a tuple however many they are."""
    names = tuple(checks)
    if len(names) > 1:
        return operator.attrgetter(*names)
    if not names:
        return lambda _: ()
    only = operator.attrgetter(*names)
    return lambda value: (only(value),)


def texts_of(record_type: type[Members]) -> tuple[str, ...]:
    """Return the members of a record type in which LF may stand, at the top: nested ones have none."""
    return tuple(name for name, shape in _object(record_type).members.items() if _is_multiline(shape))


def _spelling(shape: Shape) -> Callable[[Any], object] | None:
    match shape:
        case String(form=Form() as form):
            return form.accepts
        case Object(required=()):
            return _filled(shape.type, spelling_of(shape.type))
        case Object():
            return spelling_of(shape.type)
        case Items():
            of_item = _spelling(shape.item)
            return None if of_item is None else lambda items: all(map(of_item, items))
        case Digests():
            of_digest = _spelling(shape.digest)
            return None if of_digest is None else lambda items: all(map(of_digest, items.values()))
    return None


def _filled(of: type[Members], holds: Callable[[Any], bool] | None) -> Callable[[Any], bool]:
    empty = of()
    return lambda value: value != empty and (holds is None or holds(value))


def _is_multiline(shape: Shape) -> bool:
    match shape:
        case String():
            return shape.multiline
        case Items():
            return _is_multiline(shape.item)
    return False


@cache
def _object(record_type: type[Members]) -> Object:
    hints = get_type_hints(record_type, include_extras=True)
    members = {}
    required = []
    for field in msgspec.structs.fields(record_type):
        members[field.name] = shape_of(_present(hints[field.name]))
        if field.required:
            required.append(field.name)
    return Object(record_type, dict(sorted(members.items())), tuple(sorted(required)))


def _present(annotation: Any) -> Any:
    """Return the annotation of a member that is there: `X` of `X | None`."""
    if get_origin(annotation) in (Union, UnionType):
        (only,) = (each for each in get_args(annotation) if each is not NoneType)
        return only
    return annotation


def _constant(values: tuple[Any, ...]) -> Shape:
    match values:
        case (bool(), *_):
            return Truth(values)
        case (int() as value,):
            return Integer(value, value)
    return Code(values)


_UNBOUNDED: Final = msgspec.Meta()


def _bounds(notes: tuple[Any, ...]) -> msgspec.Meta:
    metas = [note for note in notes if isinstance(note, msgspec.Meta)]
    return metas[0] if metas else _UNBOUNDED


def _fault(path: str, description: str, allowed: tuple[str, ...] = ()) -> Violation:
    return Violation(Reason.INVALID_FIELD, description, path, allowed)
