"""Judges a solution. Two processes, so that the tests never run where the solution could change them:

- the judge holds the tests, runs them, and alone can say "passed";
- the author holds the solution, and answers the judge's calls over a pipe.

Plain values cross as JSON and are rebuilt from built-in types, so that `==` in a test is Python's own. Whatever else the
solution makes (a tree, a generator) stays with the author; the judge holds a Remote to it. The author sees what it is
called with, never what is expected.

Standard input holds the solution, the setup and the tests, each after a line with its length in bytes; the first argument
is how many processes there may be. Standard output says "ready", then one verdict.
"""

import ast
import builtins
import collections.abc
import importlib
import json
import operator
import os
import resource
import signal
import sys
import types

NULL, LARGEST = 3, 64 << 20


class Gone(Exception):
    """The other end of a pipe is closed."""


# The pipe.

def read_exactly(fd, size):
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 16))
        if not part:
            raise Gone
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def send(fd, message):
    data = json.dumps(message).encode()
    data = len(data).to_bytes(8, "big") + data
    while data:
        data = data[os.write(fd, data):]


def receive(fd):
    size = int.from_bytes(read_exactly(fd, 8), "big")
    if size > LARGEST:
        raise ValueError("the solution's answer is too large")
    return json.loads(read_exactly(fd, size))


def is_a(value, module, name):
    """Whether it is of a type that takes long to import: it is not where nobody did."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def pack(value, other):
    """A value as JSON; what is no plain value goes to `other`, which answers with a number."""
    def inner(value):
        return pack(value, other)

    if value is None or isinstance(value, bool):
        return value
    for base in (int, float, str):
        if isinstance(value, base):
            return base(value)
    if isinstance(value, dict):
        return {"dict": [[inner(key), inner(item)] for key, item in value.items()]}
    for base in (list, tuple, frozenset, bytes, bytearray):
        if isinstance(value, base):
            return {base.__name__: [inner(item) for item in value]}
    if isinstance(value, collections.abc.Set):
        return {"set": [inner(item) for item in value]}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if is_a(value, "fractions", "Fraction"):
        return {"fraction": [value.numerator, value.denominator]}
    if is_a(value, "decimal", "Decimal"):
        return {"decimal": str(value)}
    if isinstance(value, type) and getattr(builtins, value.__name__, None) is value:
        return {"type": value.__name__}
    return {"remote": other(value)}


def unpack(packed, remote):
    """The value of what `pack` made, from built-in types alone."""
    if not isinstance(packed, dict):
        return packed
    (kind, value), = packed.items()
    if kind == "dict":
        return {unpack(key, remote): unpack(item, remote) for key, item in value}
    if kind in ("list", "tuple", "set", "frozenset", "bytes", "bytearray"):
        return getattr(builtins, kind)([unpack(item, remote) for item in value])
    if kind in ("complex", "range"):
        return getattr(builtins, kind)(*value)
    if kind == "fraction":
        return importlib.import_module("fractions").Fraction(*value)
    if kind == "decimal":
        return importlib.import_module("decimal").Decimal(value)
    if kind == "type" and isinstance(getattr(builtins, value), type):
        return getattr(builtins, value)
    if kind == "remote":
        return remote(value)
    raise ValueError("the solution's answer cannot be read")


# The author.

DO = {
    "__call__": lambda target, *args, **named: target(*args, **named),
    "__getattr__": getattr,
    "__setattr__": setattr,
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__iter__": iter,
    "__next__": next,
    "__len__": len,
    "__str__": str,
    "__repr__": repr,
    "__bool__": bool,
    "__int__": int,
    "__float__": float,
}


def author(source, ask, answer):
    """Runs the solution, then does what the judge asks. Never returns."""
    kept = []
    module = types.ModuleType("solution")
    sys.modules["solution"] = module

    def keep(value):
        kept.append(value)
        return len(kept) - 1

    def do(request):
        if request is None:
            return exec(compile(source, "solution", "exec"), module.__dict__)
        if "name" in request:
            return module.__dict__[request["name"]]
        args, named = unpack(request["args"], kept.__getitem__)
        return DO[request["do"]](kept[request["of"]], *args, **named)

    request = None
    while True:
        try:
            value = do(request)
            message = {"module": True} if isinstance(value, types.ModuleType) else {"value": pack(value, keep)}
        except BaseException as error:
            message = {"raised": type(error).__name__}
            error = value = None
        send(answer, message)
        request = receive(ask)


# The judge.

class Judge:
    def __init__(self, ask, answer):
        self.ask, self.answer = ask, answer

    def request(self, request):
        send(self.ask, request)
        return self.hear()

    def hear(self, name=None):
        """The author's answer. Where it is a module, the judge takes its own of that name."""
        message = receive(self.answer)
        if "raised" in message:
            error = getattr(builtins, str(message["raised"]), None)
            known = isinstance(error, type) and issubclass(error, Exception)
            raise (error if known else RuntimeError)("raised by the solution")
        if "module" in message and name is not None:
            return importlib.import_module(name)
        return unpack(message["value"], lambda of: Remote(self, of))

    def look_up(self, names):
        """Those of the names that the solution defines."""
        found = {}
        for name in names:
            send(self.ask, {"name": name})
            try:
                found[name] = self.hear(name)
            except KeyError:
                pass
        return found

    def names(self, setup, tests):
        """The names that setup and tests take from the solution. It may stand in for a built-in only where the tests
        name nothing else of it, as in a task whose function is called `sum`."""
        used = [node for tree in (setup, tests) for node in ast.walk(tree) if isinstance(node, ast.Name)]
        own = {node.id for node in used if not isinstance(node.ctx, ast.Load)}
        wanted = sorted({node.id for node in used} - own)
        found = self.look_up(name for name in wanted if not hasattr(builtins, name))
        if not any(isinstance(value, Remote) for value in found.values()):
            found.update(self.look_up(name for name in wanted if hasattr(builtins, name)))
        return found


def forward(name):
    def method(self, *args, **named):
        judge, of = object.__getattribute__(self, "_of")
        return judge.request({"do": name, "of": of, "args": pack((args, named), number)})
    return method


# Comparison, arithmetic and `in` are left out: a solution's object may not answer for what it is compared with.
Remote = type("Remote", (), {name: forward(name) for name in DO})
Remote.__init__ = lambda self, judge, of: object.__setattr__(self, "_of", (judge, of))


def number(value):
    if type(value) is not Remote:
        raise TypeError("a test handed the solution a value that cannot cross: " + type(value).__name__)
    return object.__getattribute__(value, "_of")[1]


def parse(setup, tests):
    """Setup and tests as trees, or nothing where they are not Python or assert nothing."""
    try:
        setup, tests = ast.parse(setup), [ast.parse(test) for test in tests]
    except (SyntaxError, ValueError):
        return None
    if not any(isinstance(node, ast.Assert) for tree in tests for node in ast.walk(tree)):
        return None
    return setup, tests


def verdict(judge, author, setup, tests):
    at = 0
    try:
        trees = parse(setup, tests)
        if trees is None:
            return "broken"
        setup, tests = trees
        judge.hear()
        names = judge.names(setup, ast.Module(body=tests, type_ignores=[]))
        exec(compile(setup, "setup", "exec"), names)
        for at, tree in enumerate(tests):
            exec(compile(tree, "test", "exec"), names)
        return "passed"
    except MemoryError:
        return "memory"
    except Gone:
        died = os.WTERMSIG(os.waitpid(author, 0)[1])
        return "time" if died in (signal.SIGXCPU, signal.SIGKILL) else "failed %d" % at
    except BaseException as error:
        sys.stderr.write("%s: %s\n" % (type(error).__name__, error))
        return "failed %d" % at


def part():
    size = b""
    while not size.endswith(b"\n"):
        size += read_exactly(0, 1)
    return read_exactly(0, int(size)).decode()


def main():
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    processes = int(sys.argv[1])
    out = os.dup(1)
    os.write(out, b"ready\n")
    solution = part()
    ask, asking = os.pipe()
    answering, answer = os.pipe()
    pid = os.fork()
    # Only now: where an old kernel counts all processes of a user, the fork above would fail.
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    if pid == 0:
        try:
            for fd in (0, 1, 2):
                os.dup2(NULL, fd)
            for fd in (NULL, out, asking, answering):
                os.close(fd)
            author(solution, ask, answer)
        finally:
            os._exit(1)
    os.close(ask)
    os.close(answer)
    setup = part()
    tests = [part() for _ in range(int(part()))]
    os.dup2(NULL, 1)
    os.write(out, (verdict(Judge(asking, answering), pid, setup, tests) + "\n").encode())
    os._exit(0)


main()
