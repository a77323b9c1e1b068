"""Approvals: rules and policy (pure), the gate that waits for a person, and the file that keeps rules for good."""

from .asking import NOBODY, Asker, ask_at_terminal, ask_until, is_somebody_there, nobody
from .book import RuleBook
from .gate import ApprovalGate, binding
from .policy import MODES, ApprovalPolicy, Verdict
from .rules import BadRule, Call, Rule, foreign, rule_for

__all__ = [
    "MODES",
    "NOBODY",
    "ApprovalGate",
    "ApprovalPolicy",
    "Asker",
    "BadRule",
    "Call",
    "Rule",
    "RuleBook",
    "Verdict",
    "ask_at_terminal",
    "ask_until",
    "binding",
    "foreign",
    "is_somebody_there",
    "nobody",
    "rule_for",
]
