"""The `loss` decorator: jit with the static keywords, one door for dtypes, a full signature."""

from __future__ import annotations

import difflib
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jdml._core import checks
from jdml._core.choices import settle
from jdml._core.devices import vary, varying_axes
from jdml._core.options import BOOLEAN_OPTIONS, INTEGER_OPTIONS, STATIC_OPTIONS, Array

F = TypeVar("F", bound=Callable[..., Any])


def loss(
    *,
    reduction: str = "mean",
    static: tuple[str, ...] = (),
    per_row: tuple[str, ...] = (),
    continuous: bool = False,
) -> Callable[[F], F]:
    """Makes a formula function a public loss.

    Choices (truth values, text, functions, and the shared choices) become static arguments of
    jit, everything else is traced. Floating inputs are lifted to at least float32, numbers to the
    embeddings' dtype. `help()` shows every shared keyword spelled out.

    Args:
      reduction: what the field does for this loss: the default of the shared keyword.
      static: further keywords that are choices, such as a number of bins.
      per_row: keywords that take one number, or one a row of embeddings [B].
      continuous: whether labels are any numbers.
    """

    def decorate(fn: F) -> F:
        signature = _full_signature(fn, reduction)
        keywords = {name: p for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
        fixed = {
            name: p.default
            for name, p in keywords.items()
            if name in STATIC_OPTIONS or name in static or _is_choice(p.default)
        }
        entrance = _entrance(fn, tuple(fixed), per_row)
        jitted = jax.jit(entrance, static_argnames=tuple(fixed))
        positional = [name for name in signature.parameters if name not in keywords]
        numbers = {
            name: p.default
            for name, p in keywords.items()
            if name not in fixed and p.default is not None
        }

        @functools.wraps(fn)
        def call(*args: Any, **options: Any) -> jax.Array:
            _refuse_unknown(fn.__name__, options, list(signature.parameters))
            named = dict(zip(positional, args))
            twice = not named.keys().isdisjoint(options)
            named.update({k: options[k] for k in positional if k in options})
            if twice or len(args) > len(positional) or len(named) < len(positional):
                signature.bind(*args, **options)  # Python's own message
            arrays = {name: checks.given(name, value) for name, value in named.items()}
            options = {k: v for k, v in options.items() if k not in arrays}
            for name, value in options.items():
                if name in fixed:
                    options[name] = settle(name, fixed[name], value)
                elif value is None and name in numbers:
                    raise TypeError(f"{name}: got None, expected a number")
                else:
                    options[name] = checks.as_array(name, value)
            options = {**numbers, "reduction": reduction, **options}
            checks.reduction(options["reduction"])
            if not continuous:
                _host_checks(positional, arrays, options)
            options |= _traced_miner(options.get("miner"))
            return jitted(*(arrays[name] for name in positional), **options)

        call.__signature__ = signature  # type: ignore[attr-defined]
        call.jitted = jitted  # type: ignore[attr-defined]  # for counting compilations
        return typing.cast(F, call)

    return decorate


def _is_choice(default: Any) -> bool:
    return isinstance(default, bool | str | tuple) or callable(default)


def _full_signature(fn: Callable, reduction: str) -> inspect.Signature:
    """fn's signature with `**options: Unpack[...]` replaced by the keywords of that TypedDict."""
    hints = typing.get_type_hints(fn)
    parameters = []
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            parameters.append(parameter)
            continue
        shared = typing.get_args(hints[parameter.name])[0]
        for name, hint in shared.__annotations__.items():
            default = reduction if name == "reduction" else None
            annotation = getattr(hint, "__forward_arg__", hint)  # as written, for a short help()
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
    return inspect.Signature(parameters, return_annotation="Array")


def _refuse_unknown(loss_name: str, options: dict[str, Any], known: list[str]) -> None:
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{loss_name}() has no keyword {name!r}{hint}")


def _host_checks(positional: list[str], arrays: dict[str, Any], options: dict[str, Any]) -> None:
    """What only values can tell, where values are at hand. Rows that are not there may be any."""
    labels, where = arrays["labels"], options.get("where")
    if len(positional) < 3:
        columns = where if options.get("refs") is None else options.get("ref_where")
        checks.label_values(labels, where, columns)
        return
    table, classes = arrays[positional[2]], options.get("proxy_labels")
    checks.distinct_classes(classes)
    if classes is None and options.get("class_axis_name") is None and table.ndim >= 2:
        checks.known_classes(labels, table.shape[0], where)


class _Miner(NamedTuple):
    """A miner without its arrays, equal and hashed by value."""

    structure: Any
    choices: tuple[Any, ...]  # the other leaves of the tree, None where an array belongs


def _traced_miner(miner: Any) -> dict[str, Any]:
    """Keywords for a miner that has arrays in it, such as a random key; none for any other.

    A miner that is a registered tree is cut into what is static and its arrays, which are traced:
    a new key does not compile again, and a key of an outer trace may come in.
    """
    leaves, structure = jax.tree.flatten(miner)
    traced = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    choices = tuple(None if array else leaf for leaf, array in zip(leaves, traced))
    try:
        hash((structure, choices))
    except TypeError:
        raise TypeError(
            f"miner: got {type(miner).__name__}, expected one that can be hashed, or a registered "
            "tree whose arrays are its leaves"
        ) from None
    if not any(traced):
        return {}
    arrays = [jnp.asarray(leaf) for leaf, array in zip(leaves, traced) if array]
    return {"miner": _Miner(structure, choices), "miner_arrays": arrays}


def _whole_miner(miner: _Miner, arrays: list[Any]) -> Any:
    """The inverse of `_traced_miner`."""
    left = iter(arrays)
    leaves = [next(left) if choice is None else choice for choice in miner.choices]
    return jax.tree.unflatten(miner.structure, leaves)


def _entrance(fn: Callable, static: tuple[str, ...], per_row: tuple[str, ...]) -> Callable:
    """fn behind the door: checked shapes, one floating dtype, one varying-axes type."""
    names = [p.name for p in inspect.signature(fn).parameters.values()]
    numbers = _numbers(fn, static)

    def entered(*args: Any, miner_arrays: Any = None, **options: Any) -> jax.Array:
        traced = {k: v for k, v in options.items() if k not in static and v is not None}
        checks.masks(traced)
        inputs = dict(zip(names, args))
        inputs = {name: jnp.asarray(value) for name, value in inputs.items()}
        traced = {name: jnp.asarray(value) for name, value in traced.items()}
        dtype = _compute_dtype([*inputs.items(), *traced.items()])
        inputs = {name: _lift(name, value, dtype) for name, value in inputs.items()}
        traced = {name: _lift(name, value, dtype) for name, value in traced.items()}
        _check_shapes(inputs, traced, numbers, per_row)
        inputs, traced, miner_arrays = _one_type(
            (inputs, traced, miner_arrays), options.get("class_axis_name")
        )
        if miner_arrays is not None:
            options["miner"] = _whole_miner(options["miner"], miner_arrays)
        return fn(**inputs, **{**options, **traced})

    return entered


def _numbers(fn: Callable, static: tuple[str, ...]) -> tuple[str, ...]:
    """The loss's own keywords that are numbers, and neither choices nor arrays."""
    hints = typing.get_type_hints(fn)
    own = [p for p in inspect.signature(fn).parameters.values() if p.kind is p.KEYWORD_ONLY]

    def is_number(parameter: inspect.Parameter) -> bool:
        if parameter.name not in hints:  # of a reader who writes no types
            return isinstance(parameter.default, int | float)
        return hints[parameter.name] != Array | None

    return tuple(p.name for p in own if p.name not in static and is_number(p))


def _check_shapes(
    inputs: dict[str, Any],
    traced: dict[str, Any],
    numbers: tuple[str, ...],
    per_row: tuple[str, ...],
) -> None:
    """Sets of rows have one, and a number is one: an array of them would meet rows or references
    by chance, as its length and the blocks have it."""
    for name in ("embeddings", "refs", "proxies", "centers"):
        if name in inputs or name in traced:
            checks.some_rows(name, inputs[name] if name in inputs else traced[name])
    for name in numbers:
        if name in traced and name in per_row:
            checks.rows("embeddings", inputs["embeddings"])
            checks.per_row(name, traced[name], inputs["embeddings"].shape[0])
        elif name in traced:
            checks.one_number(name, traced[name])


def _compute_dtype(named: list[tuple[str, jax.Array]]) -> Any:
    """At least float32; float64 where a matrix of rows is. Labels do not decide it."""
    rows = [x for name, x in named if name not in INTEGER_OPTIONS]
    wide = any(x.ndim >= 2 and x.dtype == jnp.float64 for x in rows)
    return jnp.dtype("float64" if wide else "float32")


def _lift(name: str, x: jax.Array, dtype: Any) -> jax.Array:
    """Integers to one integer type, masks as they are, numbers to the compute dtype.

    Tables of classes keep their own dtype: the table engine lifts them block by block. Random
    keys, typed or raw, are no numbers.
    """
    if name in BOOLEAN_OPTIONS or name == "key":
        return x
    if name in INTEGER_OPTIONS:
        integer = jnp.issubdtype(x.dtype, jnp.integer)
        return x.astype(jnp.result_type(int)) if integer else x
    if name in ("proxies", "centers", "embeddings"):
        checks.floating(name, x)
    return x if name in ("proxies", "centers") else x.astype(dtype)


def _one_type(given: tuple[Any, ...], class_axis: str | None) -> tuple[Any, ...]:
    """Under shard_map, casts what goes in to one varying-axes type.

    The class axis is left out for all but the table: what is replicated over it stays so, and
    the loss comes out replicated too.
    """
    return vary(given, sorted(varying_axes(given) - {class_axis}))
