"""What a server answers, read strictly: nothing is built of it but the few actions that a client expects.

declearn builds whatever type a message names, even in the envelope of an answer: models, and all that is in them.
"""

from __future__ import annotations

from declearn.communication.api.backend.actions import Accept, ActionMessage, Ping, Reject, Send

from services.transport.packs import unpack

MOST_FIELDS = 8
"""Items of an envelope; declearn's have two."""


def read_answer(content: bytes) -> ActionMessage:
    """Parse what a server answers with.

    Raises:
        ValueError: it is none of declearn's answers.
    """
    match unpack(content, MOST_FIELDS):
        case {"action": "ping", **rest} if not rest:
            return Ping()
        case {"action": "send", "content": bytes(inner), **rest} if not rest:
            return Send(inner)
        case {"action": "accept", "flag": str(flag), **rest} if not rest:
            return Accept(flag)
        case {"action": "reject", "flag": str(flag), **rest} if not rest:
            return Reject(flag)
        case _:
            raise ValueError("it is none of declearn's")
