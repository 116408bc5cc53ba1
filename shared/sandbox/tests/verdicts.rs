//! Solutions get the verdict they would get from Python itself, and there is no other way to pass than to be right.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint's own exception does not see")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{outcome, sandbox, with_setup};
use sheaf_sandbox::{Outcome, SandboxError};

#[test]
fn right_solutions_pass() {
    let sandbox = sandbox();
    let similar = "def similar(a, b):\r\n  return tuple(set(a) & set(b))";
    let pairs = "
class Pair:
    def __init__(self, a, b):
        self.a, self.b = a, b
def width(pairs):
    return sum(pair.b - pair.a for pair in pairs)";
    let cases = [
        (similar, "", vec!["assert set(similar((3, 4), (4, 5))) == {4}", "assert similar((1,), (2,)) == ()"]),
        ("def sum(a, b): return a * b", "", vec!["assert sum(10, 15) == 150"]),
        (pairs, "", vec!["assert width([Pair(1, 3), Pair(2, 5)]) == 5"]),
        (pairs, "p = Pair(1, 2)\np.b = 9", vec!["assert width([p]) == 8", "assert p.b == 9"]),
        (
            "import sys\ndef size(x): return sys.getsizeof(x)",
            "",
            vec!["assert size(()) == sys.getsizeof(())"],
        ),
        ("def twos(n):\n  while n: n -= 1; yield 2", "", vec!["assert list(twos(3)) == [2, 2, 2]"]),
        (
            "from collections import Counter as C\ndef f(s): return C(s)",
            "",
            vec!["assert f('aab') == {'a': 2, 'b': 1}"],
        ),
        (
            "def f(x): raise ValueError(x)",
            "",
            vec!["try:\n  f(1)\nexcept ValueError:\n  pass\nelse:\n  assert False"],
        ),
        (
            "def keep(xs, kind): return [x for x in xs if type(x) is kind]",
            "",
            vec!["assert keep([1, 'a'], str) == ['a']"],
        ),
        ("def half(x): return x / 2", "import math", vec!["assert math.isclose(half(3), 1.5, rel_tol=1e-9)"]),
        (
            "def f(): return {1: [2.5, (None, True)], 'é\\ud800': b'x', 3: 2j, 4: 10**5000}",
            "",
            vec!["assert f() == {1: [2.5, (None, True)], 'é\\ud800': b'x', 3: 2j, 4: 10**5000}"],
        ),
        ("def f(x): return x", "", vec!["def check(g):\n  assert g(0.1) == 0.1\ncheck(f)"]),
        ("from fractions import Fraction\ndef f(): return Fraction(1, 2)", "", vec!["assert f() == 0.5"]),
    ];
    for (solution, setup, tests) in cases {
        assert_eq!(with_setup(&sandbox, solution, setup, &tests), Outcome::Passed, "{solution}\n{tests:?}");
    }
}

#[test]
fn wrong_solutions_fail() {
    let sandbox = sandbox();
    for solution in [
        "def f(x): return x + 2",
        "def f(x): return None",
        "def f(x): raise KeyError",
        "def f(: return",
        "def g(x): return x + 1",
        "raise Exception",
        "import numpy\ndef f(x): return x + 1",
        "def f(x): return f(x)",
        "import os\ndef f(x): os.abort()",
        "",
    ] {
        assert_eq!(outcome(&sandbox, solution, "assert f(1) == 2"), Outcome::Failed, "{solution}");
    }
    let first_right =
        with_setup(&sandbox, "def f(x): return 1", "", &["assert f(0) == 1", "assert f(1) == 2"]);
    assert_eq!(first_right, Outcome::Failed);
}

#[test]
fn tests_that_judge_nothing_are_refused() {
    let sandbox = sandbox();
    for tests in [vec![], vec![""], vec!["f(1)"], vec!["assert f(1) =="]] {
        let tests: Vec<String> = tests.into_iter().map(str::to_owned).collect();
        let refused = sandbox.run_tests("def f(x): return x", "", &tests);
        assert!(matches!(refused, Err(SandboxError::Tests)), "{tests:?}: {refused:?}");
    }
    let setup = sandbox.run_tests("def f(x): return x", "x =", &["assert f(1)".to_owned()]);
    assert!(matches!(setup, Err(SandboxError::Tests)), "{setup:?}");
}

/// Each of these gets a pass, or may, where solution and tests share a process.
#[test]
fn leaving_patching_and_forging_do_not_pass() {
    let sandbox = sandbox();
    let fds =
        "import os\ndef each(deed):\n  for fd in range(64):\n    try: deed(fd)\n    except OSError: pass\n";
    for cheat in [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "raise SystemExit",
        "import sys\ndef f(x): sys.exit(0)",
        "import os\ndef f(x): os._exit(0)",
        "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x): raise SystemExit(0)",
        "def f(x):\n  print('ready'); print('passed'); return 0",
        &format!("{fds}each(lambda fd: os.write(fd, b'ready\\npassed\\n'))\nos._exit(0)"),
        &format!("{fds}each(lambda fd: os.write(fd, bytes(7) + b'\\x0f{{\"value\": 123456'))\nos._exit(0)"),
        &format!("{fds}each(lambda fd: os.read(fd, 99))"),
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
        "import os, signal\nos.kill(-1, signal.SIGKILL)",
        "import builtins\nbuiltins.AssertionError = SystemExit\nbuiltins.compile = lambda *a: 'pass'\ndef f(x): return 0",
        "import builtins\nbuiltins.set = builtins.abs = lambda *a: 0\ndef f(x): return 0",
        "set = abs = lambda *a: 0\ndef f(x): return 0",
        "class AssertionError(BaseException): pass\ndef f(x): raise AssertionError",
        "import sys\nsys.modules['__main__'].verdict = lambda *a: 'passed'\ndef f(x): return 0",
        "import math\nmath.isclose = lambda *a: True\ndef f(x): return 0",
    ] {
        for test in [
            "assert set([f(1)]) == {1234567} and abs(f(1) - 1234567) < 1",
            "import math\nassert math.isclose(f(1), 7)",
        ] {
            assert_ne!(outcome(&sandbox, cheat, test), Outcome::Passed, "{cheat}\n{test}");
        }
    }
}

#[test]
fn objects_equal_to_everything_do_not_pass() {
    let sandbox = sandbox();
    let always = "
class Always(BASE):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __contains__(self, other): return True
    __lt__ = __le__ = __gt__ = __ge__ = __eq__
    def __hash__(self): return 0
    def __sub__(self, other): return self
    __rsub__ = __abs__ = lambda self, *rest: self
";
    let meta = "class Meta(type):\n  def __eq__(a, b): return True\nclass f(metaclass=Meta):\n  def __init__(self, x): pass";
    for cheat in [
        always.replace("BASE", "object") + "def f(x): return Always()",
        always.replace("BASE", "float") + "def f(x): return Always()",
        always.replace("BASE", "list") + "def f(x): return Always()",
        always.replace("BASE", "object") + "f = Always()",
        meta.to_owned(),
    ] {
        for test in [
            "assert f(1) == 1234567",
            "assert [f(1)] == [1234567]",
            "assert abs(f(1) - 1234567) <= 1e-6",
            "assert 1234567 in f(1)",
            "assert f(1) > 1234566",
            "assert set(f(1)) == {1234567}",
            "assert not f(1) != 1234567",
        ] {
            assert_ne!(outcome(&sandbox, &cheat, test), Outcome::Passed, "{cheat}\n{test}");
        }
    }
}

/// Neither the tests nor what they expect is anywhere in the process of the solution.
#[test]
fn what_is_expected_cannot_be_looked_up() {
    let sandbox = sandbox();
    let search = "
import gc, re, sys
def texts():
    frame = sys._getframe()
    while frame:
        yield repr((frame.f_code.co_consts, frame.f_locals.keys()))
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            if isinstance(value, (str, bytes, list, tuple, dict)):
                yield repr(value)
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, (list, tuple, dict)) and len(thing) < 1000:
            yield from (repr(part) for part in (thing.values() if isinstance(thing, dict) else thing) if isinstance(part, (str, bytes)))
def f(needle):
    for text in texts():
        found = re.search('needle-[0-9]+', text)
        if found:
            return found[0]
    return ''";
    assert_eq!(
        outcome(&sandbox, search, "assert f('needle-123') == 'needle-123'"),
        Outcome::Passed,
        "it finds its argument"
    );
    assert_eq!(outcome(&sandbox, search, "assert f('') == 'needle-90125'"), Outcome::Failed);
    assert_eq!(outcome(&sandbox, search, "assert f('') == ''"), Outcome::Passed);
}

#[test]
fn time_is_limited() {
    let sandbox = sandbox();
    let start = Instant::now();
    for solution in [
        "def f(x):\n  while True: pass",
        "while True: pass",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "import time\ntime.sleep(1000)",
        "import os, time\nif os.fork(): os._exit(0)\ntime.sleep(1000)",
    ] {
        let start = Instant::now();
        assert_eq!(outcome(&sandbox, solution, "assert f(1) == 2"), Outcome::OutOfTime, "{solution}");
        assert!(
            start.elapsed() < common::LIMITS.wall + Duration::from_secs(2),
            "{solution}: {:?}",
            start.elapsed()
        );
    }
    assert!(start.elapsed() < common::LIMITS.wall * 5);
    assert_eq!(outcome(&sandbox, "def f(x): return 2", "while True: pass\nassert f(1)"), Outcome::OutOfTime);
}

#[test]
fn memory_is_limited() {
    let sandbox = sandbox();
    for solution in [
        "x = bytearray(2**33)",
        "def f(x):\n  return [0] * 2**32",
        "x = []\nwhile True: x.append(bytearray(2**20))",
        "import mmap\nx = [mmap.mmap(-1, 2**24) for _ in range(99)]",
    ] {
        let start = Instant::now();
        let outcome = outcome(&sandbox, solution, "assert f(1) == 2");
        assert!(matches!(outcome, Outcome::OutOfMemory | Outcome::Failed), "{solution}: {outcome:?}");
        assert!(start.elapsed() < Duration::from_secs(4), "{solution}: {:?}", start.elapsed());
    }
    assert_eq!(outcome(&sandbox, "x = bytearray(2**33)", "assert f(1) == 2"), Outcome::OutOfMemory);
    // What is sent back counts with the judge.
    assert_ne!(
        outcome(&sandbox, "def f(x): return 'a' * (80 << 20)", "assert len(f(1)) == 80 << 20"),
        Outcome::Passed
    );
}

#[test]
fn runs_do_not_see_each_other() {
    let sandbox = sandbox();
    let tests = ["assert f(1) == 2".to_owned()];
    thread::scope(|scope| {
        for at in 0..8 {
            let (sandbox, tests) = (&sandbox, &tests);
            scope.spawn(move || {
                let solution = format!("def f(x): return {}", if at % 2 == 0 { 2 } else { 3 });
                let expected = if at % 2 == 0 { Outcome::Passed } else { Outcome::Failed };
                assert_eq!(sandbox.run_tests(&solution, "", tests).unwrap(), expected);
            });
        }
    });
}
