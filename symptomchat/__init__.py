"""SymptomChat: a small language model for symptoms and conditions that knows when it does not know."""

from symptomchat.errors import SymptomChatError
from symptomchat.runtime.assistant import Answer, Assistant, load

__all__ = ["Answer", "Assistant", "SymptomChatError", "load"]
__version__ = "0.1.0"
