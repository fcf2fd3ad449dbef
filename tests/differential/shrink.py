# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a program shorter that is answered wrongly, in rounds: each runs many candidates at once,
since a guest takes longer to boot than to run a thousand of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from .model import Answer, WrongError, check
from .program import Program, Request, Step
from .transfers import NAME

Run = Callable[[list[Program]], list[list[Answer]]]


@dataclass
class Difference:
    """A program, the step of it that was answered wrongly, all answers, and what is wrong."""

    program: Program
    at: int
    answers: list[Answer]
    wrong: WrongError

    @property
    def kind(self) -> tuple[str, str]:
        """By this it is told whether a shorter program fails for the same reason."""
        what = " ".join(word for word in self.wrong.what.split() if not word.isdigit())
        return (self.program.steps[self.at].do if self.at >= 0 else "", what)

    def __str__(self) -> str:
        step = self.program.steps[self.at] if self.at >= 0 else "the beginning"
        return f"{self.program}\nat step {self.at}, {step}:\n{self.wrong}"


def find(program: Program, answers: list[Answer], *, simulated: bool) -> Difference | None:
    """What is wrong with the answers of a program."""
    found = check(program, answers, simulated=simulated)
    if found is None:
        return None
    at, wrong = found
    return Difference(program, at, answers, wrong)


def _without(program: Program, numbers: Iterable[int]) -> Program:
    gone = set(numbers)
    steps = tuple(step for number, step in enumerate(program.steps) if number not in gone)
    return replace(program, steps=steps)


def _simpler(step: Step) -> Iterable[Step]:
    """The same step with less in it."""
    if len(step.requests) > 1:
        for number in range(len(step.requests)):
            requests = step.requests[:number] + step.requests[number + 1 :]
            # One that waits for what it adds would wait in vain.
            yield replace(step, requests=requests, min=min(step.min, len(requests)))
    if len(step.posts) > 1:
        for number in range(len(step.posts)):
            yield replace(step, posts=step.posts[:number] + step.posts[number + 1 :])
    for number, request in enumerate(step.requests):
        for simpler in _simpler_request(request):
            requests = (*step.requests[:number], simpler, *step.requests[number + 1 :])
            yield replace(step, requests=requests)


def _simpler_request(request: Request) -> Iterable[Request]:
    if request.cookie:
        yield replace(request, cookie=0)
    for bit in range(12):
        if request.flags & 1 << bit:
            yield replace(request, flags=request.flags & ~(1 << bit))
    if any(request.params):
        yield replace(request, params=(0, 0, 0))


def _candidates(program: Program, spare: list[int]) -> list[Program]:
    """Shorter programs, those first that leave out what could be left out alone before."""
    count = len(program.steps)
    found = []
    for size in (len(spare), len(spare) // 2, len(spare) // 4):
        if size > 1:
            found += [_without(program, spare[at : at + size]) for at in range(0, len(spare), size)]
    for size in (count // 2, count // 4, count // 8):
        if size > 1:
            found += [
                _without(program, range(at, min(at + size, count - 1)))
                for at in range(0, count - 1, size)
            ]
    found += [_without(program, [number]) for number in range(count - 1)]
    # A program of transfers is one because of its cast.
    for kind in program.cast if program.cast != (NAME,) else ():
        found.append(replace(program, cast=tuple(k for k in program.cast if k != kind)))
    if count <= 12:
        for number, step in enumerate(program.steps):
            for simpler in _simpler(step):
                steps = (*program.steps[:number], simpler, *program.steps[number + 1 :])
                found.append(replace(program, steps=steps))
    return list(dict.fromkeys(found))


def shrink(difference: Difference, run: Run, *, simulated: bool, rounds: int) -> Difference:
    """The shortest program found in so many rounds that is answered wrongly in the same way."""
    best = replace(
        difference,
        program=replace(difference.program, steps=difference.program.steps[: difference.at + 1]),
    )
    spare: list[int] = []
    for _ in range(rounds):
        candidates = _candidates(best.program, spare)
        smaller = best
        alone = []
        for program, answers in zip(candidates, run(candidates), strict=True):
            found = find(program, answers, simulated=simulated)
            if found is None or found.kind != best.kind:
                continue
            if len(program.steps) == len(best.program.steps) - 1:
                alone.append(program)
            if program.size < smaller.program.size:
                smaller = found
        if smaller is best:
            break
        # What could be left out alone, of what is still there.
        kept = set(smaller.program.steps)
        droppable = {
            step
            for program in alone
            for step in best.program.steps
            if best.program.steps.count(step) == program.steps.count(step) + 1
        }
        spare = [
            number
            for number, step in enumerate(smaller.program.steps[:-1])
            if step in droppable and step in kept
        ]
        steps = smaller.program.steps[: smaller.at + 1]
        best = replace(smaller, program=replace(smaller.program, steps=steps))
    return best
