"""Values that fit a node's own schema. ComfyUI lets NaN through its range, and any choice of a V3 node's drop-down.

JSON may hold NaN, an API client may send a number where a name is expected, and a link into a widget brings whatever
the node before it made. What ComfyUI cannot make a number of it hands to `validate_inputs` as it came. So every node of
the pack looks at its numbers, texts and choices first, whoever calls it.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import wraps
from numbers import Real

from .api import io

_SHOWN = 60  # characters of a value


def unfit(node: type[io.ComfyNode], values: Mapping[str, object], own: frozenset[str] = frozenset()) -> str | None:
    """Find the first value that the node's schema does not allow.

    Args:
        node: whose schema it is.
        values: name -> value; links are no concern of this.
        own: drop-downs whose choices the node looks up itself, because files come and go; here they must be a text.

    Returns:
        One sentence, or None where everything fits.
    """
    for each in node.define_schema().inputs:
        if each.id not in values:
            continue
        value = values[each.id]
        shown = repr(value) if len(repr(value)) <= _SHOWN else f"{repr(value)[:_SHOWN]} ..."
        if isinstance(each, io.Int.Input | io.Float.Input):
            if not isinstance(value, Real) or not math.isfinite(value):
                return f"{each.id} is {shown}; expected a finite number{_span(each)}."
        elif isinstance(each, io.String.Input):
            if not isinstance(value, str):
                return f"{each.id} is {shown}; expected a text."
            if any("\ud800" <= letter <= "\udfff" for letter in value):  # half of a pair, as JSON may hold one
                return f"{each.id} is {shown}; expected a text without halves of letters (\\ud800 to \\udfff)."
        elif isinstance(each, io.Combo.Input):
            choices = [str(choice) for choice in each.options or ()]
            if not isinstance(value, str) or (each.id not in own and choices and value not in choices):
                return f"{each.id} is {shown}; expected one of these choices: {', '.join(choices)}."
    return None


def _span(about: io.Int.Input | io.Float.Input) -> str:
    return "" if about.min is None or about.max is None else f" from {about.min:g} to {about.max:g}"


def refuse_unfit(node: type[io.ComfyNode]) -> None:
    """Make a node look at its values before it validates and before it runs.

    `execute` raises a ValueError, `validate_inputs` returns the same sentence; there a link is None and not looked at.
    """
    validate = getattr(node.validate_inputs, "__func__", None)
    has_own = validate is not getattr(io.ComfyNode.validate_inputs, "__func__", None)
    asked = dict(inspect.signature(validate).parameters) if has_own else {}
    asked.pop("cls", None)
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in asked.values())
    own = frozenset(each.id for each in node.define_schema().inputs) if takes_all else frozenset(asked)

    def refuse(cls: type[io.ComfyNode], given: Mapping[str, object]) -> None:
        if problem := unfit(cls, given, own):
            raise ValueError(problem)

    def sentence(cls: type[io.ComfyNode], given: Mapping[str, object]) -> str | None:
        return unfit(cls, {name: value for name, value in given.items() if value is not None}, own)

    node.execute = classmethod(_after(refuse, node.execute.__func__))
    if has_own:
        node.validate_inputs = classmethod(_where_all_is_there(_after(sentence, validate)))


def _where_all_is_there(validate: Callable[..., bool | str]) -> Callable[..., bool | str]:
    """Leave a required input that a graph lacks to ComfyUI, which names it, and asks about the rest all the same."""
    signature = inspect.signature(validate)

    @wraps(validate)
    def asked(cls: type, *args: object, **kwargs: object) -> bool | str:
        try:
            signature.bind(cls, *args, **kwargs)
        except TypeError:
            return True
        return validate(cls, *args, **kwargs)

    asked.__signature__ = signature
    return asked


def _after(look: Callable[[type, Mapping[str, object]], str | None], method: Callable[..., object]) -> Callable:
    """The method, called where a look at its arguments found nothing to return."""
    signature = inspect.signature(method)

    @wraps(method)
    def looked_at(cls: type, *args: object, **kwargs: object) -> object:
        given = signature.bind(cls, *args, **kwargs).arguments
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given = given | given.pop(name, {})
        return look(cls, given) or method(cls, *args, **kwargs)

    # ComfyUI asks for the names of the arguments without looking through wrappers.
    looked_at.__signature__ = signature
    return looked_at
