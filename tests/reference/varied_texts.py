"""A thousand texts that try a tokeniser: questions, answers, code, scripts of the world, digits, white space, emoji, special marks."""

import gzip
import json
import random

LANGUAGES = [
    "The quick brown fox jumps over the lazy dog.", "I'd've said it's what they're after; we'll see if you'd agree, she's sure I'm not.",
    "Der Fuchs springt über den faulen Hund, während Straßenbahnen quietschen.", "Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva.", "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío.",
    "À noite, vovô Kowalsky vê o ímã cair no pé do pinguim.", "Pchnąć w tę łódź jeża lub ośm skrzyń fig.", "Příliš žluťoučký kůň úpěl ďábelské ódy.", "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.", "דג סקרן שט בים מאוכזב ולפתע מצא חברה", "نص حكيم له سر قاطع وذو شأن عظيم", "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का", "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า", "Tôi có thể ăn thủy tinh mà không hại gì.",
    "いろはにほへと ちりぬるを", "色は匂へど 散りぬるを", "키스의 고유조건은 입술끼리 만나야 하고", "我能吞下玻璃而不伤身体。", "視野無限廣,窗外有藍天", "მინას ვჭამ და არა მტკივა.", "Ես կրնամ ապակի ուտել", "ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ", "မြန်မာစာ", "ខ្ញុំអាចញុំកញ្ចក់បាន",
    "ISTANBUL İstanbul ısırgan", "ﬁne ligatures ﬂow; ½ cup, x² + y³, №5, ™ © ®", "e\u0301 versus \u00e9, a\u0308 versus \u00e4", "zero\u200bwidth\u200djoiner\ufeffmark", "soft\u00adhyphen and nb\u00a0space, thin\u2009space, ideographic\u3000space",
]
CODE = [
    "def f(x):\n    return x ** 2  # square\n", "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n", "fn main() {\n    println!(\"{:?}\", vec![1u8; 3]);\n}", "SELECT id, COUNT(*) FROM t WHERE x >= 1.5e-3 GROUP BY id;", "<div class=\"a-b_c\">&nbsp;</div>",
    "{\"a\": [1, 2.50, -3e10, null, true], \"b\\n\": \"\\u00e9\"}", "https://example.org/a/b?c=d&e=%20f#g", "a.b@example.com; C:\\Users\\x\\y.txt; ~/.config/x.toml", "#!/bin/sh\nset -eu; echo \"$HOME\" | sed 's/x/y/g' > /dev/null 2>&1\n", "\\frac{a}{b} + \\sum_{i=0}^{n} x_i^2",
    "if x==1:\r\n\tpass\r\n", "λx.x ∘ ∀y∈ℝ: y² ≥ 0 → ⊤", "camelCase snake_case kebab-case SCREAMING_CASE HTTPServer2Go", "'''doc''' \"\"\"doc\"\"\" ``code`` `x`", "x=1;y=2;z=x+y==3?\"a\":'b'",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>", "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>",
           "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🇫🇷", "🏳️‍🌈", "❤️", "☕", "🧑🏿‍🚀", "1️⃣", "🤷‍♂️"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n", "\n ", "\t\t ", "\u00a0", "\u3000", "\u2003", "\u0085", "\u2028", "\x0b", "\x0c"]
RANGES = [(0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x2000, 0x206F), (0x2070, 0x218F), (0x2190, 0x22FF),
          (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFF01, 0xFF5E), (0x1D400, 0x1D7FF), (0x1F300, 0x1F64F), (0x660, 0x669), (0x966, 0x96F), (0x1, 0x1F)]


def lines(path, count, letters, field):
    with gzip.open(path, "rt", encoding="utf-8") as f:
        rows = [json.loads(line)[field] for line in f]
    step = len(rows) // count
    return [r[:letters] for r in rows[::step]][:count]


def thousand(data):
    rng = random.Random(3)
    out = ["", " ", "a", "\n", "0"] + LANGUAGES + CODE
    out += lines(data / "finance_banking77.jsonl.gz", 150, 80, "text")
    out += lines(data / "medical_medquad.jsonl.gz", 120, 90, "answer")
    out += lines(data / "code_mbpp.jsonl.gz", 120, 90, "answer")
    for _ in range(100):  # digits among other things
        n = "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 9)))
        out.append(rng.choice(["", " ", "  ", "$", "a", "-", "\n", "１", "٣"]) + n + rng.choice(["", " ", ".5", ",000", "%", "th", " 7", "  8", "²", "½", "६७", "\t9"]))
    for _ in range(100):  # runs of white space
        words = [rng.choice(["a", "the", "x1", "é", "«", "'s", "…", "3", ""]) + "".join(rng.choice(SPACES) for _ in range(rng.randint(0, 4))) for _ in range(4)]
        out.append("".join(words))
    for _ in range(60):
        out.append("".join(rng.choice(EMOJI) + rng.choice(["", " ", "ok", "\n", "!"]) for _ in range(rng.randint(1, 4))))
    for _ in range(80):
        out.append("".join(rng.choice(["", " ", "user\n", "text", "\n", "é"]) + rng.choice(SPECIAL + ["<|im_", "end|>", "<filename", "<|IM_END|>"]) + rng.choice(["", " ", "x", "\n"]) for _ in range(rng.randint(1, 3))))
    while len(out) < 1000:  # random characters of one script, or of two
        picked = [rng.choice(RANGES) for _ in range(rng.randint(1, 2))]
        out.append("".join(chr(rng.randint(*rng.choice(picked))) for _ in range(rng.randint(1, 14))))
    return out
