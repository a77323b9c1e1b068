"""A step of a `CodeAgent`: the model is asked, its answer is read whatever form it has, and its code is run.

smolagents' own step takes code between tags and nothing else. What is asked, what is yielded, what is logged and what stands
in the step afterwards is the same here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text
from smolagents import CodeAgent
from smolagents.agents import ActionOutput, AgentExecutionError, AgentGenerationError, AgentParsingError, ToolCall
from smolagents.local_python_executor import fix_final_answer_code
from smolagents.memory import ActionStep, TaskStep
from smolagents.models import CODEAGENT_RESPONSE_FORMAT, ChatMessage, agglomerate_stream_deltas
from smolagents.monitoring import LogLevel
from smolagents.utils import truncate_content

from .models.answer_calls import NativeCall, written
from .models.answers import Given, Reading, read, shape_of


class Answering(CodeAgent):
    """A `CodeAgent` that understands answers as models really give them.

    Attributes:
        reading (`Reading`): Of the newest answer.
        shapes (`Counter[str]`): How often answers had each shape, those that could not be read among them.
    """

    reading = Reading("empty")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.shapes: Counter[str] = Counter()
        super().__init__(*args, **kwargs)

    def _step_stream(self, memory_step: ActionStep) -> Generator[Any]:
        message = yield from self._ask(memory_step)
        self.reading = reading = self._read(memory_step, message)
        if reading.code is None:
            raise AgentParsingError(reading.hint, self.logger)
        memory_step.code_action = code = fix_final_answer_code(reading.code)
        call = ToolCall(name="python_interpreter", arguments=code, id=f"call_{len(self.memory.steps)}")
        yield call
        memory_step.tool_calls = [call]
        yield self._act(memory_step, code)

    def _ask(self, step: ActionStep) -> Generator[Any, None, ChatMessage]:
        step.model_input_messages = messages = self.write_memory_to_messages().copy()
        opening, closing = self.code_block_tags
        stop = ["Observation:", "Calling tools:", *([] if closing in opening else [closing])]
        options: dict[str, Any] = {"stop_sequences": stop}
        if self._use_structured_outputs_internally:
            options["response_format"] = CODEAGENT_RESPONSE_FORMAT
        try:
            if self.stream_outputs:
                message = yield from self._stream(messages, options)
            else:
                message = self.model.generate(messages, **options)
                said = message.content
                self.logger.log_markdown(said or "", "Output message of the LLM:", LogLevel.DEBUG)
        except Exception as error:  # any model's own error, which smolagents' callers expect as this one
            raise AgentGenerationError(f"Error in generating model output:\n{error}", self.logger) from error
        step.model_output_message, step.token_usage = message, message.token_usage
        return message

    def _stream(self, messages: list[ChatMessage], options: dict[str, Any]) -> Generator[Any, None, ChatMessage]:
        deltas = []
        with Live("", console=self.logger.console, vertical_overflow="visible") as live:
            for delta in self.model.generate_stream(messages, **options):
                deltas.append(delta)
                live.update(Markdown(agglomerate_stream_deltas(deltas).render_as_markdown()))
                yield delta
        return agglomerate_stream_deltas(deltas)

    def _read(self, step: ActionStep, message: ChatMessage) -> Reading:
        """What the answer means; in the step, what the model is to see of it from now on."""
        given, structured = _given(message), self._use_structured_outputs_internally
        reading = read(given, self._signatures(), self.code_block_tags, self._failed(), structured)
        said = given.text
        if reading.shape == "tags" and not structured and not said.strip().endswith(self.code_block_tags[1]):
            # It stopped there because it was told to: seeing the end, it goes on to write it.
            message.content = said = said + self.code_block_tags[1]
        if given.calls:
            said = f"{said}\n{written(given.calls)}".strip()
        step.model_output = said if said.strip() else None  # nobody takes an empty message
        self.shapes[reading.shape] += 1
        return reading

    def _signatures(self) -> dict[str, dict[str, str]]:
        tools = {
            name: {each: str(of.get("type")) for each, of in tool.inputs.items()} for name, tool in self.tools.items()
        }
        return {**{name: {"task": "string"} for name in self.managed_agents}, **tools}

    def _failed(self) -> list[str]:
        """Of which shape the answers were, directly before, that could not be read."""
        shapes: list[str] = []
        for step in reversed(self.memory.steps):
            if isinstance(step, TaskStep) or (
                isinstance(step, ActionStep) and not isinstance(step.error, AgentParsingError)
            ):
                break
            if isinstance(step, ActionStep) and step.error is not None:
                shapes.insert(0, shape_of(step.error.message))
        return shapes

    def _act(self, step: ActionStep, code: str) -> ActionOutput:
        self.logger.log_code(title="Executing parsed code:", content=code, level=LogLevel.INFO)
        try:
            ran = self.python_executor(code)
        except Exception as error:  # noqa: BLE001 - whatever the code raised, which is what the model is to see
            self._show_printed(step)
            said = str(error)
            if "Import of " in said and " is not allowed" in said:
                self.logger.log(
                    "[bold red]Warning to user: Code execution failed due to an unauthorized import - Consider passing said "
                    "import under `additional_authorized_imports` when initializing your CodeAgent.",
                    level=LogLevel.INFO,
                )
            raise AgentExecutionError(said, self.logger)  # noqa: B904 - as smolagents raises it
        value = truncate_content(str(ran.output))
        step.observations = f"Execution logs:\n{ran.logs}Last output from code snippet:\n{value}"
        shown = [Text("Execution logs:", style="bold"), Text(ran.logs)] if ran.logs else []
        shown += [] if ran.is_final_answer else [Text(f"Out: {value}")]
        self.logger.log(Group(*shown), level=LogLevel.INFO)
        step.action_output = ran.output
        return ActionOutput(output=ran.output, is_final_answer=ran.is_final_answer)

    def _show_printed(self, step: ActionStep) -> None:
        """What code printed before it failed: executors keep it in their state."""
        state = getattr(self.python_executor, "state", None)  # smolagents' own seam: not every executor has one
        printed = str(state["_print_outputs"]) if state is not None and "_print_outputs" in state else ""
        if printed:
            step.observations = "Execution logs:\n" + printed
            self.logger.log(Group(Text("Execution logs:", style="bold"), Text(printed)), level=LogLevel.INFO)


def _given(message: ChatMessage) -> Given:
    content = message.content
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))
    calls = tuple(NativeCall(call.function.name, call.function.arguments) for call in message.tool_calls or ())
    return Given(content if isinstance(content, str) else "", calls, _finish(message.raw))


def _finish(raw: Any) -> str:
    """Why an answer ended, where the provider's own form of it says so."""
    try:
        reason = raw.choices[0].finish_reason
    except (AttributeError, IndexError, KeyError, TypeError):
        return ""
    return reason if isinstance(reason, str) else ""
