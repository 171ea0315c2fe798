"""The code that runs around the user's function: one text for each kind, specialised to its signature.

Generated, as `dataclasses` does: naming the parameters saves the `*args` hop (about 80 ns of a call), and the
wrapper answers a wrong call with the same TypeError that the function would. Lines are there or not by the
call's mode, written behind them:

    marked    a context variable carries the call, for stages and `current()`
    ident     an extractor gives the id, which decides on keeping
    entity    ... and it is the entity's, not the prediction's
    traced    a sampled parent in the incoming context decides on keeping
    sharded   each thread has cells of its own: interpreters on which `cells[i] += 1` can lose a count

Everything used is a closure variable, so that the wrapper keeps the globals of the user's module, and what is
rarely called is a method of `binding`, for each closure variable costs 1 ns a call; `Binding` sets them anew
when labels and buckets are settled, and swaps the code when the mode changes. No lock, no system call, no
span and no record happens here: a call that is not kept adds to cells. Cells, `due` and what is added are all
floats, for the interpreter has fast paths for two operands of one type: 40 ns of a call, 100 of an async one.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# What the wrapper closes over, whatever its mode: codes can only be swapped with the same free variables.
FREE = (
    "fn", "binding", "cells", "shard", "fine", "due", "slow", "stages", "crc_limit", "identify", "incoming",
    "enter", "leave", "clock", "bisect", "crc32",
)  # fmt: skip

_LOCAL = frozenset(
    {*FREE, "args", "kwargs", "begun", "error", "ident", "inner", "item", "limit", "marker", "number",
     "other", "own", "parent", "problem", "result", "sent", "start", "step", "stop", "token", "took",
     "wrapper", "Exception", "BaseException", "GeneratorExit", "StopIteration", "StopAsyncIteration"}
)  # fmt: skip
_MOST_LAYERS = 32


@dataclass(frozen=True, slots=True)
class Mode:
    """Which lines a wrapper has."""

    marked: bool = True
    ident: bool = False
    entity: bool = False
    traced: bool = False
    sharded: bool = False


_PLAIN = """
{define} wrapper({parameters}):
    begun = False
    try:
        start = clock()
        own = cells  # not sharded
        own = shard()  # sharded
        limit = slow
        marker = None  # not marked
        marker = [binding, None, stages]  # marked
        token = enter(marker)  # marked
        begun = True
        number = own[0] = own[0] + 1.0
        if number >= due:  # not sharded
        if number >= own[-1]:  # sharded
            limit, marker = binding.prepare(marker, number, {positional}, {keywords})
            start = clock()
        parent = incoming()  # traced
        if parent is not None and parent[2]:  # traced
            limit, marker = binding.prepare(marker, -1, {positional}, {keywords})  # traced
            start = clock()  # traced
    except Exception as problem:
        binding.broken("begin", problem)
    if not begun:
        return {wait}fn({arguments})
    try:  # ident
        ident = identify({arguments})  # ident
        if crc32(ident.encode()) * 2654435761 & 0xFFFFFFFF < crc_limit:  # ident
            limit, marker = binding.prepare_ident(marker, ident, {positional}, {keywords})  # ident
        else:  # ident, marked
            marker[1] = ident  # ident, marked, not entity
            marker[1] = binding.identified({positional}, {keywords})  # ident, marked, entity
    except Exception as problem:  # ident
        try:  # ident
            limit, marker = binding.strange_ident(marker, limit, problem, {positional}, {keywords})  # ident
        except Exception as problem:  # ident
            binding.broken("prediction_id", problem)  # ident
    try:
        result = {wait}fn({arguments})
    except BaseException as error:
        try:
            binding.failed(marker, start, clock() - start, error, {positional}, {keywords})
        except Exception as problem:
            binding.broken("failed", problem)
        try:  # marked
            leave(token)  # marked
        except Exception as problem:  # marked
            binding.broken("leave", problem)  # marked
        raise
    try:
        took = clock() - start
        if took > limit:  # not marked
        if took > limit or marker[0] is not binding:  # marked
            binding.finished(marker, start, took, result, {positional}, {keywords})
        else:
            own[bisect(fine, took) + 2] += 1.0
            own[1] += took
    except Exception as problem:
        binding.broken("end", problem)
    try:  # marked
        leave(token)  # marked
    except Exception as problem:  # marked
        binding.broken("leave", problem)  # marked
    return result
    ({free})
"""

# The call begins with the first item asked for and is current only while the function's own code runs: a
# context variable set in a generator would otherwise leak to whoever consumes it. Closing throws
# GeneratorExit in, which the function may answer like any other.
_GENERATOR = """
{define} wrapper({parameters}):
    inner = fn({arguments})
    marker = binding.begin({positional}, {keywords})
    step, sent = inner.{send}, None
    while True:
        token = binding.enter(marker)
        try:
            item = {wait}step(sent)
        except {stop} as stop:
            {result}
            break
        except BaseException as error:
            binding.stopped(marker, error, {positional}, {keywords})
            raise
        finally:
            binding.leave(token)
        binding.gave(marker)
        try:
            sent = yield item
            step = inner.{send}
        except BaseException as error:
            step, sent = inner.{throw}, error
    binding.ended(marker, {value}, {positional}, {keywords})
    {give}
    ({free})
"""

FUNCTION, COROUTINE, GENERATOR, ASYNC_GENERATOR = "function", "coroutine", "generator", "async generator"

_GENERATOR_WORDS = {"send": "send", "throw": "throw", "stop": "StopIteration"}
_ASYNC_WORDS = {"send": "asend", "throw": "athrow", "stop": "StopAsyncIteration"}
_KINDS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    FUNCTION: (_PLAIN, {"define": "def", "wait": ""}),
    COROUTINE: (_PLAIN, {"define": "async def", "wait": "await "}),
    GENERATOR: (
        _GENERATOR,
        {
            **_GENERATOR_WORDS,
            "define": "def",
            "wait": "",
            "result": "result = stop.value",
            "value": "result",
            "give": "return result",
        },
    ),
    ASYNC_GENERATOR: (
        _GENERATOR,
        {
            **_ASYNC_WORDS,
            "define": "async def",
            "wait": "await ",
            "result": "del stop",
            "value": "None",
            "give": "return",
        },
    ),
}


def _function_of(fn: Callable[..., Any]) -> Callable[..., Any]:
    """What a partial, or an object with `__call__`, calls."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) or isinstance(fn, type) else type(fn).__call__


def kind_of(fn: Callable[..., Any]) -> str:
    """Which kind of callable it is; partials and objects with `__call__` are seen through."""
    fn = _function_of(fn)
    if inspect.isasyncgenfunction(fn):
        return ASYNC_GENERATOR
    if inspect.iscoroutinefunction(fn):
        return COROUTINE
    if inspect.isgeneratorfunction(fn):
        return GENERATOR
    return FUNCTION


_GENERAL: Mapping[str, str] = {
    "parameters": "*args, **kwargs",
    "arguments": "*args, **kwargs",
    "positional": "args",
    "keywords": "kwargs",
}
_NONE: Mapping[str, str] = {"parameters": "", "arguments": "", "positional": "()", "keywords": "{}"}


def _signature_words(fn: Callable[..., Any]) -> Mapping[str, str]:
    """Parameters, and how they are passed on, of a plain Python function; `*args, **kwargs` for all else."""
    if not isinstance(fn, types.FunctionType):
        return _GENERAL
    code = fn.__code__
    count, only = code.co_argcount, code.co_kwonlyargcount
    named = list(code.co_varnames[: count + only])
    rest = list(code.co_varnames[count + only :])
    star = rest.pop(0) if code.co_flags & inspect.CO_VARARGS else None
    double = rest.pop(0) if code.co_flags & inspect.CO_VARKEYWORDS else None
    every = [*named, *(name for name in (star, double) if name)]
    if not every:
        return _NONE
    if any(name in _LOCAL or not name.isidentifier() for name in every):
        return _GENERAL
    first, later = named[:count], named[count:]
    parameters = list(first)
    if code.co_posonlyargcount:
        parameters.insert(code.co_posonlyargcount, "/")
    if star or later:
        parameters.append(f"*{star}" if star else "*")
    parameters += later + ([f"**{double}"] if double else [])
    starred = [f"*{star}"] if star else []
    arguments = first + starred + [f"{name}={name}" for name in later] + ([f"**{double}"] if double else [])
    positional = "".join(f"{name}, " for name in first + starred)
    keywords = ", ".join([f"{name!r}: {name}" for name in later] + ([f"**{double}"] if double else []))
    return {
        "parameters": ", ".join(parameters),
        "arguments": ", ".join(arguments),
        "positional": f"({positional})",
        "keywords": f"{{{keywords}}}",
    }


def _source(fn: Callable[..., Any], mode: Mode) -> str:
    template, words = _KINDS[kind_of(fn)]
    lines = []
    for line in template.format(**words, **_signature_words(fn), free=", ".join(FREE)).splitlines():
        code, _, condition = line.partition("  # ")
        if condition and not all(
            getattr(mode, word.removeprefix("not ")) is not word.startswith("not ")
            for word in condition.split(", ")
        ):
            continue
        lines.append(f"    {code}")
    return f"def factory({', '.join(FREE)}):\n" + "\n".join(lines) + "\n    return wrapper\n"


@functools.lru_cache(maxsize=1024)
def _factory(source: str, kind: str) -> Callable[..., types.FunctionType]:
    scope: dict[str, Any] = {}
    exec(compile(source, f"<mlobs.observe {kind}>", "exec"), scope)  # noqa: S102 - our text, checked names
    made: Callable[..., types.FunctionType] = scope["factory"]
    return made


def _compiled(fn: Callable[..., Any], mode: Mode, free: Mapping[str, Any]) -> types.FunctionType:
    return _factory(_source(fn, mode), kind_of(fn))(*(free.get(name) for name in FREE))


def make_wrapper(fn: Callable[..., Any], free: Mapping[str, Any], mode: Mode) -> types.FunctionType:
    """A function of the same kind, signature, name, docstring and globals as `fn`, closing over `free`.

    `free` maps names of FREE to values; the closure's cells are `closure_cells(wrapper)`. About 1 ms.
    """
    made = _compiled(fn, mode, free)
    wrapper = types.FunctionType(
        made.__code__,
        getattr(fn, "__globals__", made.__globals__),
        getattr(fn, "__name__", type(fn).__name__),
        closure=made.__closure__,
    )
    if isinstance(fn, types.FunctionType) and _signature_words(fn) is not _GENERAL:
        wrapper.__defaults__, wrapper.__kwdefaults__ = fn.__defaults__, fn.__kwdefaults__
    functools.update_wrapper(wrapper, fn)
    return wrapper


def code_of(fn: Callable[..., Any], mode: Mode) -> types.CodeType:
    """The wrapper's code in another mode: set it as its `__code__`, and the next call runs it; about 0.5 ms.

    Calls under way finish in the code they began with.
    """
    return _compiled(fn, mode, {}).__code__


def _layers(fn: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The function, and what it wraps."""
    for _ in range(_MOST_LAYERS):  # there are objects that say they wrap themselves
        yield _function_of(fn)
        inner: Any = inspect.getattr_static(fn, "__wrapped__", None)
        if not callable(inner):
            return
        fn = inner


def hides_its_end(fn: Callable[..., Any]) -> bool:
    """Whether it is a plain function around a coroutine or generator function: it may end long after it
    returned, and nobody can tell from here.
    """
    return kind_of(fn) == FUNCTION and any(kind_of(layer) != FUNCTION for layer in _layers(fn))


def names_used(fn: Callable[..., Any]) -> frozenset[str]:
    """Global and attribute names that the function's own code mentions, functions inside of it too; and those
    of what it wraps (`functools.wraps`).
    """
    found: set[str] = set()
    codes = [
        code for layer in _layers(fn) if isinstance(code := getattr(layer, "__code__", None), types.CodeType)
    ]
    while codes:
        code = codes.pop()
        found.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return frozenset(found)


def closure_cells(wrapper: types.FunctionType) -> dict[str, types.CellType]:
    """The wrapper's closure variables by name: setting `cell_contents` changes them for the next call."""
    return dict(zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True))
