"""What the person in front of it reads."""

import sys
import time


def step(text: str) -> None:
    print(f"\n\033[1m==> {text}\033[0m" if sys.stdout.isatty() else f"\n==> {text}", flush=True)


def line(text: str) -> None:
    print(text, flush=True)


class Problem(Exception):
    """Ends the command with one sentence that says what to do."""


def minutes(seconds: float) -> str:
    seconds = round(seconds)
    return f"{seconds // 60} min {seconds % 60:02} s" if seconds >= 60 else f"{seconds} s"


class Stopwatch:
    def __init__(self) -> None:
        self.begun = time.monotonic()

    def __float__(self) -> float:
        return time.monotonic() - self.begun
