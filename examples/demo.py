"""The main job from end to end: starts a cluster, asks about the pictures beside this file, stops it.

Encode, prefill and decode run in three processes; each answer says who did
what and how long it took. Exits with 1 if an answer is not the expected one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from elasticmm_client import Client

HERE = Path(__file__).resolve().parent
CLI = [sys.executable, "-m", "cli.main"]


@dataclass(frozen=True, slots=True)
class Question:
    """One line of questions.jsonl."""

    text: str
    images: tuple[Path, ...]
    answer: str


def questions() -> list[Question]:
    lines = (HERE / "questions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [
        Question(record["question"], tuple(HERE / name for name in record["images"]), record["answer"])
        for record in records
    ]


@contextmanager
def cluster(state_dir: Path) -> Iterator[str]:
    """A running cluster of one encode, one prefill and one decode server; yields its address."""
    where = ["--state-dir", str(state_dir)]
    up = subprocess.run(
        [*CLI, "up", "--topology", "e1p1d1", "--port", "0", "--detach", "--json", *where],
        stdout=subprocess.PIPE,
        check=True,
    )
    try:
        yield json.loads(up.stdout)["address"]
    finally:
        subprocess.run([*CLI, "down", *where], check=True)


def ask(client: Client, question: Question) -> bool:
    """Streams one answer to the terminal; whether it is the expected one."""
    print(f"\n{' + '.join(path.name for path in question.images) or '(text)'}: {question.text}\n  → ", end="")
    parts = [{"type": "image", "image": path} for path in question.images]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": question.text}]}]
    stream = client.generate(messages=messages, max_tokens=64)
    for event in stream:
        print(event.text, end="", flush=True)
    result = stream.result()
    print(f"\n    first token after {result.ttft_ms:.0f} ms")
    for span in result.stages:
        way = f", sent on by {span.transport}" if span.transport else ""
        print(f"    {span.stage:8} on {span.instance}: {span.start_ms:6.1f} to {span.end_ms:6.1f} ms{way}")
    if result.text.strip() != question.answer:
        print(f"    expected: {question.answer}")
    return result.text.strip() == question.answer


def main() -> int:
    started_s = time.monotonic()
    asked = questions()
    print("Starting a coordinator and three stage servers …", flush=True)
    with tempfile.TemporaryDirectory(prefix="elasticmm-demo-") as folder, cluster(Path(folder)) as address:
        print(f"Ready after {time.monotonic() - started_s:.1f} s at {address}")
        with Client(address) as client:
            right = sum([ask(client, question) for question in asked])
    print(f"\n{right} of {len(asked)} answers as expected, {time.monotonic() - started_s:.1f} s in all.")
    return 0 if right == len(asked) else 1


if __name__ == "__main__":
    sys.exit(main())
