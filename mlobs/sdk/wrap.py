"""The code that runs around the user's function, one text for each kind, specialised to its signature.

Generated, as `dataclasses` does: naming the parameters saves the `*args` hop (about 80 ns of a call), and the
wrapper answers a wrong call with the same TypeError that the function would. Everything it uses is a closure
variable, so that it keeps the globals of the user's module; `Binding` sets them anew when labels and buckets
are settled.

No lock, no system call, no span and no record happens here: a call that is not kept adds to cells.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

# What the wrapper closes over, in this order.
FREE = (
    "fn", "Call", "binding", "cells", "fine", "due", "slow", "prepare", "failed", "finished",
    "enter", "leave", "clock", "bisect", "broken",
)  # fmt: skip

_LOCAL = frozenset(
    {*FREE, "args", "kwargs", "call", "limit", "number", "problem", "result", "start", "step", "stop", "sent",
     "token", "took", "error", "inner", "item", "wrapper", "Exception", "BaseException"}
)  # fmt: skip

_PLAIN = """
{define} wrapper({parameters}):
    try:
        call = Call()
        call.binding = binding
        call.decision = None
        limit = slow
        start = call.start = clock()
        token = enter(call)
        number = cells[0] = cells[0] + 1
        if number >= due:
            limit = prepare(call, number, {positional}, {keywords})
            start = call.start = clock()
    except Exception as problem:
        call = None
        broken("begin", problem)
    if call is None:
        return {wait}fn({arguments})
    try:
        result = {wait}fn({arguments})
    except BaseException as error:
        failed(call, error, {positional}, {keywords})
        try:
            leave(token)
        except Exception as problem:
            broken("leave", problem)
        raise
    try:
        took = clock() - start
        if took > limit or call.decision is not None:
            finished(call, took, result, {positional}, {keywords})
        else:
            cells[bisect(fine, took) + 2] += 1
            cells[1] += took
    except Exception as problem:
        broken("end", problem)
    try:
        leave(token)
    except Exception as problem:
        broken("leave", problem)
    return result
"""

# The call begins with the first item asked for and is current only while the function's own code runs: a
# context variable set in a generator would otherwise leak to whoever consumes it.
_GENERATOR = """
{define} wrapper({parameters}):
    inner = fn({arguments})
    call = binding.begin({positional}, {keywords})
    step, sent, item = inner.{send}, None, None
    while True:
        token = None if call is None else enter(call)
        try:
            item = {wait}step(sent)
        except {stop} as stop:
            {result}
            break
        except BaseException as error:
            if call is not None:
                failed(call, error, {positional}, {keywords})
            raise
        finally:
            if token is not None:
                binding.leave(token)
        if call is not None:
            call.items += 1
        try:
            sent = yield item
            step = inner.{send}
        except GeneratorExit as error:
            token = None if call is None else enter(call)
            try:
                {wait}inner.{close}()
            except BaseException as other:
                if call is not None:
                    failed(call, other, {positional}, {keywords})
                raise
            finally:
                if token is not None:
                    binding.leave(token)
            if call is not None:
                failed(call, error, {positional}, {keywords})
            raise
        except BaseException as error:
            step, sent = inner.{throw}, error
    if call is not None:
        binding.ended(call, {value}, {positional}, {keywords})
    {give}
"""

FUNCTION, COROUTINE, GENERATOR, ASYNC_GENERATOR = "function", "coroutine", "generator", "async generator"

_KINDS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    FUNCTION: (_PLAIN, {"define": "def", "wait": ""}),
    COROUTINE: (_PLAIN, {"define": "async def", "wait": "await "}),
    GENERATOR: (
        _GENERATOR,
        {
            "define": "def",
            "wait": "",
            "send": "send",
            "close": "close",
            "throw": "throw",
            "stop": "StopIteration",
            "result": "result = stop.value",
            "value": "result",
            "give": "return result",
        },
    ),
    ASYNC_GENERATOR: (
        _GENERATOR,
        {
            "define": "async def",
            "wait": "await ",
            "send": "asend",
            "close": "aclose",
            "throw": "athrow",
            "stop": "StopAsyncIteration",
            "result": "pass",
            "value": "None",
            "give": "return",
        },
    ),
}


def kind_of(fn: Callable[..., Any]) -> str:
    """Which kind of callable it is; partials and objects with `__call__` are seen through."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not inspect.isroutine(fn) and not isinstance(fn, type):
        fn = type(fn).__call__
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


def _signature_texts(fn: Callable[..., Any]) -> Mapping[str, str]:
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
    if not every or any(name in _LOCAL or not name.isidentifier() for name in every):
        return (
            _GENERAL if every else {"parameters": "", "arguments": "", "positional": "()", "keywords": "{}"}
        )
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


def make_wrapper(fn: Callable[..., Any], free: Mapping[str, Any]) -> types.FunctionType:
    """A function of the same kind, signature, name, docstring and globals as `fn`, closing over `free`.

    `free` holds exactly the names of FREE. The closure's cells are `closure_cells(wrapper)`.
    """
    template, words = _KINDS[kind_of(fn)]
    words_of = _signature_texts(fn)
    source = template.format(**words, **words_of)
    body = "\n".join(f"    {line}" for line in source.splitlines())
    text = f"def factory({', '.join(FREE)}):\n{body}\n    return wrapper\n"
    scope: dict[str, Any] = {}
    exec(compile(text, f"<mlobs.observe {kind_of(fn)}>", "exec"), scope)  # noqa: S102 - our text, checked names
    made = scope["factory"](*(free[name] for name in FREE))
    wrapper = types.FunctionType(
        made.__code__,
        getattr(fn, "__globals__", scope),
        getattr(fn, "__name__", type(fn).__name__),
        closure=made.__closure__,
    )
    if isinstance(fn, types.FunctionType) and words_of["parameters"] != _GENERAL["parameters"]:
        wrapper.__defaults__, wrapper.__kwdefaults__ = fn.__defaults__, fn.__kwdefaults__
    functools.update_wrapper(wrapper, fn)
    return wrapper


def closure_cells(wrapper: types.FunctionType) -> dict[str, types.CellType]:
    """The wrapper's closure variables by name: setting `cell_contents` changes them for the next call."""
    return dict(zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True))
