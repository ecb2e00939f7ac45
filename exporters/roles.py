"""What each input and output of a step graph is: a frame, a state, the state's next value, a constant, an answer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..engine.errors import ExportError
from .joining import Part, Port


@dataclass(frozen=True, slots=True)
class Roles:
    """Names. states: input to next value. links: an output to the later graph's input that reads it."""

    frames: tuple[str, ...]
    states: dict[str, str]
    outputs: tuple[str, ...]
    links: dict[str, str]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller said about names; None where nothing."""

    states: Mapping[str, str]
    links: Mapping[str, str]
    constants: frozenset[str]
    inputs: tuple[str, ...] | None
    outputs: tuple[str, ...] | None


def roles_of(parts: Sequence[Part], wishes: Wishes) -> Roles:
    """The role of every input and output. Raises ExportError where one has none, or may have several."""
    _check_names(parts, wishes)
    states: dict[str, str] = {}
    links: dict[str, str] = dict(wishes.links)
    loose: dict[str, Port] = {}  # outputs of earlier graphs that nothing reads yet
    frames: list[str] = []
    for part in parts:
        own = _pairs(part, wishes)
        states |= own
        given = [p for name, p in part.inputs.items() if name not in own and name not in wishes.constants]
        given = [p for p in given if p.name not in links.values()]
        found = _linked(given, loose, wishes)
        links |= found
        frames += [p.name for p in given if p.name not in found.values()]
        nexts = {*states.values(), *wishes.states.values()}
        loose |= {name: p for name, p in part.outputs.items() if name not in nexts}
        loose = {name: p for name, p in loose.items() if name not in links}
    outputs = wishes.outputs if wishes.outputs is not None else tuple(loose)
    roles = Roles(tuple(frames), states, outputs, links)
    _check_complete(parts, wishes, roles)
    return roles


def _pairs(part: Part, wishes: Wishes) -> dict[str, str]:
    """The states of one graph: those that were said, then those whose names and shapes agree, then those left that look like states."""
    pairs = {name: after for name, after in wishes.states.items() if name in part.inputs}
    fixed = {*wishes.constants, *wishes.links.values(), *(wishes.inputs or ())}
    inputs = [p for name, p in part.inputs.items() if name not in pairs and name not in fixed]
    outputs = [
        p for name, p in part.outputs.items() if name not in {*pairs.values(), *wishes.links, *(wishes.outputs or ())}
    ]
    for agrees in (_same_stem, _state_like):
        found = _unambiguous(part, inputs, outputs, agrees)
        pairs |= found
        inputs = [p for p in inputs if p.name not in found]
        outputs = [p for p in outputs if p.name not in found.values()]
    if not wishes.states and not pairs:
        _refuse_guess(part, inputs, outputs)
    return pairs


def _unambiguous(part: Part, inputs: list[Port], outputs: list[Port], agrees) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for given in inputs:
        fitting = [o for o in outputs if fits(given, o) and agrees(given.name, o.name)]
        if len(fitting) > 1:
            raise ExportError(
                f"{part.path.name}: state {given.text} has several outputs that may be its next value: {', '.join(o.text for o in fitting)}; "
                f"say which, as in states={{'{given.name}': '{fitting[0].name}'}}"
            )
        if fitting:
            pairs[given.name] = fitting[0].name
    for after in set(pairs.values()):
        rivals = [name for name, other in pairs.items() if other == after]
        if len(rivals) > 1:
            raise ExportError(
                f"{part.path.name}: output '{after}' may be the next value of several inputs: {', '.join(map(repr, rivals))}; "
                f"say which, as in states={{'{rivals[0]}': '{after}'}}"
            )
    return pairs


def _refuse_guess(part: Part, inputs: list[Port], outputs: list[Port]) -> None:
    """Shapes alone decide nothing where a graph may have states, for a frame and an answer may have the same shape."""
    candidates = [(i, o) for i in inputs for o in outputs if fits(i, o)]
    if candidates and len(inputs) > 1:
        listed = "; ".join(f"{i.text} -> {o.text}" for i, o in candidates)
        raise ExportError(
            f"{part.path.name}: no names tell its states. By shape these may be pairs: {listed}. Say which are, as in "
            f"states={{'{candidates[-1][0].name}': '{candidates[-1][1].name}'}}, or inputs={[p.name for p in inputs]} where all are frames"
        )


def _linked(given: list[Port], loose: Mapping[str, Port], wishes: Wishes) -> dict[str, str]:
    """Inputs of a later graph that an earlier graph's output goes to: by name, else by shape where there is one choice."""
    found: dict[str, str] = {}
    for port in given if loose else ():
        if wishes.inputs is not None and port.name in wishes.inputs:
            continue
        kept = [o for o in loose.values() if o.name not in (wishes.outputs or ())]
        named = [o for o in kept if o.name == port.name.rpartition(".")[2] and fits(port, o)]
        fitting = named or [o for o in kept if fits(port, o)]
        if len(fitting) > 1 or (fitting and fitting[0].name in found):
            raise ExportError(
                f"input {port.text} may read {', '.join(o.text for o in fitting)} of an earlier graph; "
                f"say which, as in links={{'{fitting[0].name}': '{port.name}'}}"
            )
        if fitting:
            found[fitting[0].name] = port.name
    return found


def fits(a: Port, b: Port) -> bool:
    """Of one dtype, rank and, where both are known, sizes."""
    if a.dtype != b.dtype or len(a.dims) != len(b.dims):
        return False
    return all(x == y for x, y in zip(a.dims, b.dims, strict=True) if isinstance(x, int) and isinstance(y, int))


_WORDS = r"in|out|input|output|inputs|outputs|next|new|prev|previous|past|present|old|cur|current|last|init|initial|updated|after|before"
_STATE_WORDS = (
    r"h|c|hx|cx|h\d|c\d|hidden|cell|state|states|cache|caches|memory|mem|buffer|buf|hid|carry|ctx|context|hn|cn|kv"
)


def _stem(name: str) -> str:
    """The name without what tells an old value from a new one: h0 and hn, state and stateN, cache_in and new_cache."""
    words = _words(name.rpartition(".")[2] if "." in name else name)
    kept = [w for w in words if not re.fullmatch(_WORDS, w) and w not in ("n", "t")]
    stem = "_".join(kept)
    return re.sub(r"^([hc])_?[0n]$", r"\1", stem)


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return [w for w in re.split(r"[^A-Za-z0-9]+", spaced.lower()) if w]


def _same_stem(a: str, b: str) -> bool:
    return a != b and _stem(a) == _stem(b) != "" and looks_kept(a, b)


def looks_kept(a: str, b: str) -> bool:
    """At least one of the two names says that it is a state, or an old or new value of something."""
    return (
        looks_like_state(a)
        or looks_like_state(b)
        or any(re.fullmatch(r"next|new|prev|previous|past|present|old|updated|n", w) for n in (a, b) for w in _words(n))
    )


def looks_like_state(name: str) -> bool:
    return any(re.fullmatch(_STATE_WORDS, w) for w in _words(name))


def _state_like(a: str, b: str) -> bool:
    return looks_like_state(a)


def _check_names(parts: Sequence[Part], wishes: Wishes) -> None:
    inputs = {n: p for part in parts for n, p in part.inputs.items()}
    outputs = {n: p for part in parts for n, p in part.outputs.items()}
    checks = [
        ("states", wishes.states, inputs, "input"),
        ("states", wishes.states.values(), outputs, "output"),
        ("links", wishes.links, outputs, "output"),
        ("links", wishes.links.values(), inputs, "input"),
        ("constants", wishes.constants, inputs, "input"),
        ("inputs", wishes.inputs or (), inputs, "input"),
        ("outputs", wishes.outputs or (), outputs, "output"),
    ]
    for option, names, known, what in checks:
        for name in names:
            if name not in known:
                raise ExportError(f"{option}: there is no {what} '{name}'; the graph has {sorted(known)}")
    for name, after in wishes.states.items():
        if not fits(inputs[name], outputs[after]):
            raise ExportError(
                f"states: {inputs[name].text} and its next value {outputs[after].text} differ in dtype or shape; pair others"
            )
    for before, after in wishes.links.items():
        if not fits(outputs[before], inputs[after]):
            raise ExportError(
                f"links: {outputs[before].text} does not fit {inputs[after].text}: they differ in dtype or shape"
            )


def _check_complete(parts: Sequence[Part], wishes: Wishes, roles: Roles) -> None:
    """Nothing that looks like a state is left over, and something comes in and goes out."""
    inputs = {n: p for part in parts for n, p in part.inputs.items()}
    if not roles.frames:
        raise ExportError(
            f"no input is left for frames: states are {roles.states}, constants {sorted(wishes.constants)}; one must be"
        )
    if not roles.outputs:
        raise ExportError(
            f"every output is a state's next value or is read by another graph: {sorted(roles.states.values())}; say which a step gives, as in outputs=['{next(iter(roles.states.values()), '')}']"
        )
    if wishes.inputs is not None and (extra := [n for n in roles.frames if n not in wishes.inputs]):
        port = inputs[extra[0]]
        raise ExportError(
            f"input {port.text} is not among inputs={list(wishes.inputs)}, and is neither a state nor a constant; pair it with an output, as in states={{'{port.name}': ...}}, or give it a value, as in constants={{'{port.name}': ...}}"
        )
    for name in roles.frames if wishes.inputs is None else ():
        if looks_like_state(name):
            raise ExportError(
                f"input {inputs[name].text} looks like a state, and no output is its next value; pair it, as in states={{'{name}': ...}}, or name all inputs that are frames: inputs={list(roles.frames)}"
            )
    for name in roles.outputs if wishes.outputs is None else ():
        if looks_like_state(name):
            raise ExportError(
                f"output '{name}' looks like the next value of a state, and nothing feeds it back; pair it, as in states={{...: '{name}'}}, or name the outputs of a step: outputs={list(roles.outputs)}"
            )
