"""Agents that a caller passes in as colleagues of every session: each session has its own.

What must never happen here: two sessions share an agent, which holds its memory and what it is doing.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from smolagents import CodeAgent, LocalPythonExecutor, Monitor, MultiStepAgent, ToolCallingAgent
from smolagents.memory import AgentMemory, CallbackRegistry

from .errors import InternError
from .models import ChainModel, EndpointModel
from .off_tools import without_network
from .subagents import original

Maker = Callable[[], Any]


def makers_of(agents: Iterable[Any]) -> tuple[Maker, ...]:
    """What makes an agent anew for each session.

    Args:
        agents (`Iterable`): Agents of smolagents' own kinds, which are copied less their memories, or functions that make one
            of any kind, which are called once a session.

    Raises:
        InternError: an agent cannot be copied, or cannot be called as it has no name or no description.
    """
    makers = []
    for agent in agents:
        if isinstance(agent, MultiStepAgent):
            _look_at(agent)
            copied(agent)  # whether it can be said now, and not in the middle of a night
            makers.append(lambda agent=agent: copied(agent))
        elif callable(agent):
            makers.append(lambda make=agent: _made(make))
        else:
            raise InternError(
                f"{type(agent).__name__} cannot be a managed agent",
                "it is neither an agent nor a function that makes one",
            )
    return tuple(makers)


def _made(make: Maker) -> Any:
    agent = make()
    if not isinstance(agent, MultiStepAgent):
        raise InternError(
            f"A function among `managed_agents` gave a {type(agent).__name__}", "it has to make an agent"
        )
    _look_at(agent)
    return agent


def _look_at(agent: Any) -> None:
    if not agent.name or not agent.description:
        raise InternError(
            f"A managed agent ({type(agent).__name__}) lacks its name or description", "by these the intern calls it"
        )


def copied(agent: MultiStepAgent) -> MultiStepAgent:
    """An agent like this one, with nothing in its memory; its tools are the same ones.

    Raises:
        InternError: it is of a kind whose parts are not known.
    """
    agent = original(agent)
    if type(agent) not in (CodeAgent, ToolCallingAgent):
        raise InternError(
            f"`{agent.name}` is a {type(agent).__name__}, which cannot be copied",
            "each session needs an agent of its own",
            "Pass a function that makes it: managed_agents=[lambda: ...].",
        )
    new = copy.copy(agent)
    new.model = _own_model(agent.model)
    new.memory = AgentMemory(agent.memory.system_prompt.system_prompt)
    new.state, new.task, new.step_number, new.interrupt_switch = dict(agent.state), None, 0, False
    new.tools = {name: original(tool) for name, tool in agent.tools.items()}
    new.managed_agents = {name: copied(below) for name, below in agent.managed_agents.items()}
    new.monitor = Monitor(new.model, new.logger)
    new.step_callbacks = CallbackRegistry()
    for kind, callbacks in agent.step_callbacks._callbacks.items():
        for callback in callbacks:
            of_monitor = getattr(callback, "__self__", None) is agent.monitor
            new.step_callbacks.register(kind, new.monitor.update_metrics if of_monitor else callback)
    if isinstance(agent, CodeAgent) and isinstance(new, CodeAgent):
        if type(agent.python_executor) is not LocalPythonExecutor:
            raise InternError(
                f"`{agent.name}` runs its code in {type(agent.python_executor).__name__}, which cannot be copied",
                "each session needs one of its own",
                "Pass a function that makes the agent: managed_agents=[lambda: ...].",
            )
        new.python_executor = new.create_python_executor()
    return new


def _own_model(model: Any) -> Any:
    """The same model, which can be told to stop by itself: a session that is interrupted stops no other one's answers."""
    if type(model) is ChainModel:
        return ChainModel([_own_model(link) for link in model.models], model.on_switch, model.cool_scale)
    if type(model) is not EndpointModel:
        return model
    own = copy.copy(model)
    own.cancelled, own._preparing, own._preparers = (
        threading.Event(),
        threading.Lock(),
        deque(maxlen=model._preparers.maxlen),
    )
    return own


def off_the_network(agents: Iterable[Any]) -> list[Any]:
    """The same agents; tools of theirs that need the network say that they are off."""
    agents = list(agents)
    for agent in agents:
        agent.tools = {tool.name: tool for tool in without_network(map(original, agent.tools.values()))}
        off_the_network(map(original, agent.managed_agents.values()))
    return agents


def unique(agents: Sequence[Any], tools: Iterable[Any]) -> None:
    """Raises an `InternError` where two of them would be called by one name."""
    names = [*(agent.name for agent in agents), *(tool.name for tool in tools)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InternError(
            f"Two of the agents and tools are called {', '.join(twice)}", "", "Give one of them another name."
        )
