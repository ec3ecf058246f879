"""One row of each kind that instruction data hold, in OpenAI's form of messages."""

from __future__ import annotations

from typing import Any, Final

TOOLS: Final[list[dict[str, Any]]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Return the weather of a place.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name of the place."},
                    "days": {"type": "integer", "description": "Days ahead."},
                },
                "required": ["city"],
            },
        },
    }
]
_CALL: Final[dict[str, Any]] = {
    "id": "a1B2c3D4e",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Lyon", "days": 3}},
}
# As OpenAI writes it: the arguments are JSON text.
_TEXT_CALL: Final = _CALL | {
    "function": _CALL["function"] | {"arguments": '{"city": "Lyon", "days": 3}'}
}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: str | None, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


def _system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def _result(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": _CALL["id"], "name": "get_weather"}


_LONG: Final = " ".join(f"Item {i} costs {i * 7 % 91} crowns, which is fair." for i in range(250))

KINDS: Final[dict[str, dict[str, Any]]] = {
    "plain": {"messages": [_user("Name a river in France."), _assistant("The Loire, for one.")]},
    "two rounds": {
        "messages": [
            _user("Name a river."),
            _assistant("The Rhine."),
            _user("And a longer one?"),
            _assistant("The Danube is longer.\n\nThe Volga is longer still."),
        ]
    },
    "system": {
        "messages": [_system("Answer in one word."), _user("Where is Kyoto?"), _assistant("Japan")]
    },
    "empty system": {
        "messages": [_system(""), _user("Where is Kyoto?"), _assistant("It is in Japan.")]
    },
    "white space": {
        "messages": [
            _system("  Be brief.\n"),
            _user("\n Which colour has the sky?  "),
            _assistant(" Blue, mostly. \n"),
            _user("And the sea?\n\n"),
            _assistant("\n\nBlue  too.\n"),
        ]
    },
    "tool call": {
        "tools": TOOLS,
        "messages": [
            _user("Will it rain in Lyon?"),
            _assistant("", tool_calls=[_CALL]),
            _result('{"sky": "clear", "rain": 0.1}'),
            _assistant("No, the sky will be clear."),
        ],
    },
    "call alone": {
        "tools": TOOLS,
        "messages": [_user("Will it rain in Lyon?"), _assistant("", tool_calls=[_TEXT_CALL])],
    },
    "null content": {
        "tools": TOOLS,
        "messages": [
            _user("Will it rain in Lyon?"),
            _assistant(None, tool_calls=[_CALL]),
            _result("clear, 21 degrees"),
            _assistant("It stays dry."),
        ],
    },
    "reasoning in content": {
        "messages": [
            _user("What is 17 + 4?"),
            _assistant("<think>\nSeventeen plus four.\n</think>\n\nThat makes 21."),
            _user("And twice that?"),
            _assistant("<think>\nTwo times 21 is 42.\n</think>\n\nTwice that is 42."),
        ]
    },
    "reasoning in a field": {
        "messages": [
            _user("What is 17 + 4?"),
            _assistant("That makes 21.", reasoning_content="Seventeen plus four."),
            _user("And twice that?"),
            _assistant("Twice that is 42.", reasoning_content="Two times 21 is 42."),
        ]
    },
    "flags": {
        "messages": [
            _user("Name a river."),
            _assistant("The Rhino.", weight=0),
            _user("That is an animal."),
            _assistant("Sorry: the Rhine.", weight=1),
        ]
    },
    "unicode": {
        "messages": [
            _user("Translate « naïve café » 👩‍🔬."),
            _assistant("純真なカフェ 👋🏽 ‑ e\u0301té, 漢字; ½ ≤ ∞"),
        ]
    },
    "long": {"messages": [_user("List the prices. " * 100), _assistant(_LONG)]},
}


def counts(message: dict[str, Any]) -> bool:
    """Return whether a message is an answer that no flag makes context."""
    return message["role"] == "assistant" and message.get("weight", 1) != 0
