"""Seeded mutations for test_fuzz.py: of bytes, of files by their format, of run folders and of command lines."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

DEEP = json.loads("[" * 90 + "]" * 90)
NUMBERS = (0, 1, 2, 3, -1, 255, 2**31, 2**63, 2**64, 10**20, -(10**20), 0.0, 0.5, 1.5, 1e-320, 1e30, 1e308, 10**4000)
NOT_FINITE = (math.nan, math.inf, -math.inf)
TEXTS = ["", " ", "a\0b", "\n", "é漢\u2028🎉", "a" * 300, "%s{0}$x^{2$"]
WORDS = "a 1 -1 nan 1e999 true null .. / ../up a/b - torch:Tensor payload:Payload-v0 gru lstm cuda:256"
TEXTS += WORDS.split()
ODD = [*NUMBERS, *NOT_FINITE, *TEXTS, None, True, False, [], {}, [[]], {"a": 1}, {"": {}}, [None], ["a", 1], DEEP]
TOKENS = b'*a|<<: {a: 1}|&a [*a, *a]|? |\t|\r|---\n|...|{|]|"|#|,|:|NaN|1e999|!!binary x|%TAG ! x\n'.split(b"|")
TOKENS += [b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"[" * 3000, b"{a: " * 3000, b"9" * 5000]
TOKENS += [b"!!python/object/apply:pathlib.Path.touch [../outside/ran]"]
PATHS = [".", "folder", "text.txt", "loop", "dangling", "null", "full", "none/a.json", "\udcff", "a" * 300, "a/" * 3000]
OPTIONS = """
--help --out --json --save --resume --run --seed --episodes --overwrite --best --policy.cell --env.id --env -- -x --=
--env.kwargs.length --policy --network.hidden_size --total_steps --horizons --figure --device --name=x --workers
--env.kwargs.length=5 --policy.hidden_size --algorithm.n_steps --streams --adversary --steps --env.kwargs.distractors
"""
PAYLOAD = b"cpathlib\nPath.touch\n(cpathlib\nPath\n(S'../outside/ran'\ntRtR."  # a pickle that leaves a file behind
DTYPES = {"F4": 4, "F6_E2M3": 6, "F8_E4M3": 8, "F8_E8M0": 8, "U8": 8, "BOOL": 8, "F16": 16, "BF16": 16, "U16": 16}
DTYPES |= {"F32": 32, "I32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64, "": 32}


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes with a bit flipped, a piece cut out, doubled or put elsewhere, or something odd put in."""
    i, j = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    how = rng.randrange(7)
    if how == 0 and data:
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    pieces = (data[:i], data[:i] + data[j:], data[:j] + data[i:], data[:i] + rng.randbytes(9) + data[i:], data[j:])
    return data[:i] + rng.choice(TOKENS) + data[i:] if how < 3 else rng.choice(pieces)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (holder, key) of nested mappings and lists."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def mutate_tree(rng: random.Random, tree: Any) -> Any:
    """Return nested data with a value replaced or removed, a key renamed or added, or a level more or less."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree)) if isinstance(tree, dict | list) else []
    if not places or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(ODD))
    holder, key = rng.choice(places)
    value, how = holder[key], rng.randrange(10)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[rng.choice((*TEXTS, f"{key}s"))] = holder.pop(key)
    elif how == 2 and isinstance(value, dict):
        value[rng.choice(TEXTS)] = copy.deepcopy(rng.choice(ODD))
    elif how == 3:
        holder[key] = rng.choice(([value], {str(key): value}, str(value)))
    elif how == 4 and isinstance(value, int | float):
        holder[key] = rng.choice((-value, value + 1, value * 2, value / 2, float(value), value * 10**9))
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD))
    return tree


def to_yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "replace")


def mutate_yaml(rng: random.Random, data: bytes) -> bytes:
    return to_yaml(mutate_tree(rng, yaml.safe_load(data)))


def mutate_json(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.1:
        return rng.choice((b"[" * 100_000, b"null", b"[]", b'"text"', b"1", b"{}", b"\xff"))
    return json.dumps(mutate_tree(rng, json.loads(data))).encode()


def mutate_csv(rng: random.Random, data: bytes) -> bytes:
    rows = list(csv.reader(io.StringIO(data.decode())))
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
    how = rng.randrange(4)
    if how == 0:
        del rows[i]
    elif how == 1:
        rows[i] = [*rows[j], *rng.choice(((), ("more",)))]
    elif rows[i]:
        rows[i][rng.randrange(len(rows[i]))] = str(rng.choice([*NUMBERS[:-1], *NOT_FINITE, *TEXTS]))
    return "".join(",".join(row) + "\r\n" for row in rows).encode()


def mutate_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Return the file with something changed in its header: a type, a shape, an offset, a name; or its length."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = rng.choice(list(header))
    if rng.random() < 0.5 and isinstance(header[name], dict) and "dtype" in header[name]:
        header[name]["dtype"], bits = rng.choice(list(DTYPES.items()))
        start, end = header[name]["data_offsets"]
        if rng.random() < 0.8:  # as many numbers as fit in, so that the file is sound
            header[name]["shape"] = [(end - start) * 8 // bits]
    else:
        header = mutate_tree(rng, header)
    text = json.dumps(header).encode()
    length = rng.choice((len(text), len(text), len(text), 0, 2**63, len(text) + 1))
    return length.to_bytes(8, "little") + text + (rest if rng.random() < 0.8 else b"\xff" * len(rest))


MUTATIONS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".yaml": mutate_yaml,
    ".json": mutate_json,
    ".csv": mutate_csv,
    ".safetensors": mutate_safetensors,
}


def mutate_file(rng: random.Random, data: bytes, name: str) -> bytes:
    """Return a file changed according to its format, or as mere bytes."""
    known = MUTATIONS.get(Path(name).suffix)
    if known is None or rng.random() < 0.3:
        return mutate_bytes(rng, data)
    try:
        return known(rng, data)
    except (ValueError, yaml.YAMLError, IndexError, RecursionError):  # what an earlier mutation has made unreadable
        return mutate_bytes(rng, data)


def mutate_folder(rng: random.Random, run: Path, outside: Path) -> None:
    """Change a file of a run folder, or put another thing in the place of a file or folder, or one more beside it."""
    found = [path for path in run.rglob("*") if not path.is_symlink()]
    files = [path for path in found if path.is_file()]
    target = rng.choice(files if files and rng.random() < 0.6 else found or [run])
    how = rng.randrange(10)
    if target.is_file() and how < 6:
        target.write_bytes(mutate_file(rng, target.read_bytes(), target.name))
    elif how == 6:
        beside = target.parent if target.is_file() else target
        for name in ("payload.py", "yaml.py", "numpy.py", "analysis.py"):
            (beside / name).write_text("import pathlib\npathlib.Path('../outside/ran').touch()\n")
        for name in (".hidden", "000000000099", "best-000000000099", "a" * 250, "9" * 30, "\udcff"):
            (beside / name).mkdir(exist_ok=True)
    elif target != run:
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        twin, home = outside / "run" / target.relative_to(run), outside / "home"
        leads_to = [twin, twin, twin, home, home, home / "notes.txt", target, outside / "none"]
        if how == 9:
            put: tuple[Callable[[], object], ...] = (target.mkdir, partial(os.mkfifo, target), str)
            rng.choice(put)()
        else:
            target.symlink_to(rng.choice([*leads_to, *(outside / "dev").iterdir()]))


def mutate_argv(rng: random.Random, argv: list[str]) -> list[str]:
    """Return a command line with a token dropped, doubled, garbled, moved or replaced."""
    i = rng.randrange(len(argv))
    odd = rng.choice([*PATHS, *TEXTS, *map(str, NUMBERS[:-1]), *OPTIONS.split()]).replace("\0", "?")
    how = rng.randrange(8)
    argv = list(argv)
    if how == 0 and len(argv) > 1:
        del argv[i]
    elif how == 1:
        argv.insert(i, argv[i])
    elif how == 2:
        argv[i] = os.fsdecode(mutate_bytes(rng, os.fsencode(argv[i])).replace(b"\0", b"?")[:5000])
    elif how == 3:
        argv.insert(i, odd)
    elif how == 4:
        argv += [rng.choice(OPTIONS.split()), odd]
    elif how == 5:
        rng.shuffle(argv)
    else:  # the command itself is left
        argv[max(i, min(1, len(argv) - 1))] = odd
    return argv
