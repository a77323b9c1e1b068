"""What the model sees."""

from .render import Renderer

__all__ = ["Renderer"]
