"""A tree of agents: who stands above and below whom, behind one gate, ledger, record and interrupt."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from smolagents import CodeAgent, ToolCallingAgent
from smolagents.memory import ActionStep, MemoryStep, PlanningStep

from .approval import ApprovalGate, nobody
from .budget import SpendLedger
from .events import ApprovalAnswer, ApprovalRequest, State
from .execution import JailExecutor
from .repetition import RepetitionGuard
from .router import ToolRouter
from .secrets import Masker
from .steps import Observer, Observers, ToolCallStep, ToolResultStep
from .subagents import Below, CodeOutside, Delegate, SubAgent, Superior, Worker, members_of, original
from .supervision import CONTINUE, Ending, Supervisor
from .team import Team


class TreeMember:
    """An agent of this project as part of a tree of agents: it may stand at the top, or below others.

    Attributes:
        path (`str`): Its name below the top; `""` at the top.
        root (`TreeMember`): The top: one gate and one record for all of the tree.
        above (`SubAgent`, *optional*): What calls it.
        below (`dict[str, Below]`): What it calls.
        runs (`dict[str, Worker]`): At the top: the sub-agents of the whole tree that are at work, by their paths.
        share (`float`): At the top: how much of what is left of the budget each task of a sub-agent may take.
    """

    path: str
    root: TreeMember
    above: SubAgent | None
    below: dict[str, Below]
    runs: dict[str, Worker]
    share: float
    gate: ApprovalGate
    router: ToolRouter
    masker: Masker
    ledger: SpendLedger
    observer: Observers
    supervisor: Supervisor
    ending: Ending | None
    interrupt_switch: bool
    model: Any
    tools: Any
    _managed: dict[str, Any]
    _parked: bool

    def fire(self, step: MemoryStep) -> None:
        """Tells all callbacks of a step; one of them may refuse it."""
        raise NotImplementedError

    def note_call(self, step: ToolCallStep) -> None:
        """Takes note of a call of one of its own tools."""
        raise NotImplementedError

    def note_result(self, step: ToolResultStep) -> None:
        """Takes note of its result."""
        raise NotImplementedError

    @property
    def managed_agents(self) -> dict[str, Any]:
        return self._managed

    @managed_agents.setter
    def managed_agents(self, agents: Mapping[str, Any]) -> None:
        self.below = {name: place(agent, self.root, self) for name, agent in agents.items()}
        self._managed = dict(self.router.route_agents(self.below))

    def subs(self) -> list[SubAgent]:
        """The agents that it calls."""
        return members_of(self.below.values())

    @property
    def parked(self) -> bool:
        """Whether the session has given up its jail: whatever runs comes to no end."""
        return self._parked or self.root._parked

    def stopped(self) -> bool:
        """Whether this agent is to stop, or one above it."""
        denied = self.ending is not None and self.ending.state is State.DENIED
        return self.interrupt_switch or self._parked or denied or (self.above is not None and self.above.stopped())

    def interrupt_below(self) -> None:
        for one in self.below.values():
            one.interrupt()

    def cleanup_below(self) -> None:
        for one in self.below.values():
            one.cleanup()

    def ask_person(self, request: ApprovalRequest) -> ApprovalAnswer:
        """Asks a person something between two steps, through the gate at the top.

        Nobody is asked whether a sub-agent may go round in circles: it ends, and the agent above it reads why.
        """
        if self.above is not None and request.tool == CONTINUE:
            return nobody(request)
        return self.root.gate.put(replace(request, agent=self.path, left_usd=self.ledger.left_usd()))

    def join(self, root: TreeMember, above: SubAgent) -> None:
        """Becomes part of a tree of agents: its calls, and those of the agents below it, go to the tree's gate and record."""
        self.root, self.above, self.path = root, above, above.path
        own, self.router = self.router, ToolRouter(above.fire, root.masker, above=root.router)
        # What was measured is the session's, whoever asks; where its code runs, and its jobs, are its own.
        shared = root.router.services
        self.router.services = {
            **own.services,
            "records": lambda: shared["records"]() if "records" in shared else None,
        }
        self.tools = {name: original(tool) for name, tool in own.items()}
        self.managed_agents = {name: original(agent) for name, agent in self.managed_agents.items()}

    @property
    def own_limits(self) -> tuple[float | None, float | None]:
        """What each task may cost when it is a sub-agent: US dollars and hours."""
        return self.ledger.budget_usd, self.ledger.max_hours

    @contextmanager
    def take_part(self, ledger: SpendLedger, observer: Observer, guard: RepetitionGuard | None) -> Generator[None]:
        """For one task within a tree: counts there, is watched there."""
        kept, watched, guarded = self.ledger, self.observer.all, self.supervisor.guard
        self.ledger, self.observer.all = ledger, (*watched, observer)
        self.supervisor.guard = guarded or guard
        try:
            yield
        finally:
            self.ledger, self.observer.all, self.supervisor.guard = kept, watched, guarded

    def guard_for_sub_agent(self) -> RepetitionGuard | None:
        return self.supervisor.guard.fresh() if self.supervisor.guard is not None else None


def place(agent: Any, root: TreeMember, above: Superior) -> Below:
    """Puts a managed agent, or a team of them, behind the gate and the record of `root`."""
    agent = original(agent)
    if type(agent) is not Team:
        return adopt(agent, root, above)
    agent.take_place(above, lambda one, name: adopt(one, root, above, name))
    return agent


def adopt(agent: Any, root: TreeMember, above: Superior, name: str = "") -> SubAgent:
    """Puts a managed agent, its tools and all agents below it behind the gate and the record of `root`."""
    agent = original(agent)
    if isinstance(agent, CodeAgent):
        jailed = isinstance(agent, TreeMember) and isinstance(agent.python_executor, JailExecutor)
        kind = Delegate if jailed else CodeOutside
    else:
        kind = Delegate if isinstance(agent, ToolCallingAgent) else SubAgent
    sub = kind(agent, root, above, agent if isinstance(agent, TreeMember) else None, name)
    if isinstance(agent, TreeMember):
        agent.join(root, sub)
        return sub
    router = ToolRouter(sub.fire, root.masker, above=root.router)
    router.update({name: original(tool) for name, tool in agent.tools.items()})
    agent.tools = router
    agent.step_callbacks.register(ActionStep, sub.finished)
    agent.step_callbacks.register(PlanningStep, sub.planned)
    below = {name: place(managed, root, sub) for name, managed in agent.managed_agents.items()}
    sub.below = list(below.values())
    agent.managed_agents = dict(router.route_agents(below))
    return sub
